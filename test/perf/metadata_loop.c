/* Create, stat and unlink COUNT files in directories of 1,000 under DIR, one after the other, and read the
   clock before and after each, as any program that reports latencies must. Prints seconds per operation kind. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PER_DIRECTORY = 1000 };

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int operate(int kind, int directory, const char *name) {
    struct stat status;
    if (kind == 0) {
        int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        return fd < 0 ? -1 : close(fd);
    }
    return kind == 1 ? fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) : unlinkat(directory, name, 0);
}

int main(int argc, char **argv) {
    int count = argc == 3 ? atoi(argv[2]) : 0;
    if (count <= 0 || count % PER_DIRECTORY || chdir(argv[1])) return 2;
    long long *times = malloc(2 * sizeof *times * count);
    if (!times) return 2;
    for (int kind = 0; kind < 3; kind++) {
        long long began = now_ns();
        int directory = -1;
        char name[32];
        for (int i = 0; i < count; i++) {
            if (i % PER_DIRECTORY == 0) {
                snprintf(name, sizeof name, "d%d", i / PER_DIRECTORY);
                if (kind == 0 && mkdir(name, 0700)) return 1;
                if (directory >= 0) close(directory);
                directory = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            }
            snprintf(name, sizeof name, "f%d", i);
            times[2 * i] = now_ns();
            if (operate(kind, directory, name)) return 1;
            times[2 * i + 1] = now_ns();
        }
        close(directory);
        printf("%.9f\n", (now_ns() - began) / 1e9);
    }
    return 0;
}
