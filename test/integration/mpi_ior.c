/* Stands for IOR where that is not installed: an MPI program that takes IOR's options, writes and reads a file
 * for each rank (or its part of one), and prints what IOR 4 prints of it. Ranks read what those of the next node wrote.
 *
 *     mpicc -O2 -o ior mpi_ior.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int rank, tasks;

static void die(const char *what)
{
    printf("ior ERROR: %s: %s, (mpi_ior.c)\n", what, strerror(errno));
    fflush(stdout);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static double transfer(int fd, int writes, char *block, size_t block_bytes, off_t start, size_t size_bytes)
{
    for (size_t done = 0; done < size_bytes; done += block_bytes) {
        ssize_t moved = writes ? pwrite(fd, block, block_bytes, start + (off_t)done)
                               : pread(fd, block, block_bytes, start + (off_t)done);
        if (moved != (ssize_t)block_bytes)
            die(writes ? "write() failed" : "read() failed");
    }
    if (writes && fsync(fd))
        die("fsync() failed");
    return MPI_Wtime();
}

int main(int argc, char **argv)
{
    size_t block_bytes = 1 << 20, size_bytes = 1 << 20;
    int repeats = 1, writes = 0, reads = 0, own_files = 0, keeps = 0, direct = 0, ranks_here;
    const char *path = "testFile";
    MPI_Comm here;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &tasks);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
    MPI_Comm_size(here, &ranks_here);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-t")) block_bytes = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "-b")) size_bytes = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "-i")) repeats = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-o")) path = argv[++i];
        else if (!strcmp(argv[i], "-a")) i++;
        else if (!strcmp(argv[i], "-w")) writes = 1;
        else if (!strcmp(argv[i], "-r")) reads = 1;
        else if (!strcmp(argv[i], "-F")) own_files = 1;
        else if (!strcmp(argv[i], "-k")) keeps = 1;
        else if (!strcmp(argv[i], "--posix.odirect")) direct = O_DIRECT;
    }
    char *block = aligned_alloc(4096, block_bytes);
    memset(block, rank + 1, block_bytes);
    if (!rank) {
        printf("IOR-4.1.0: MPI Coordinated Test of Parallel I/O\n\nOptions: \napi                 : POSIX\n");
        printf("access              : %s\n", own_files ? "file-per-process" : "single-shared-file");
        printf("nodes               : %d\ntasks               : %d\n", tasks / ranks_here, tasks);
        printf("clients per node    : %d\nrepetitions         : %d\n\nResults: \n\n", ranks_here, repeats);
        printf("access    bw(MiB/s)  IOPS       Latency(s)  block(KiB) xfer(KiB)  open(s)    wr/rd(s)   close(s)"
               "   total(s)   iter\n");
        printf("------    ---------  ----       ----------  ---------- ---------  --------   --------   --------"
               "   --------   ----\n");
    }
    for (int iteration = 0; iteration < repeats; iteration++)
        for (int step = 0; step < 2; step++) {
            int is_write = !step, part = is_write ? rank : (rank + ranks_here) % tasks;
            char name[4096];
            if (is_write ? !writes : !reads)
                continue;
            if (own_files) snprintf(name, sizeof name, "%s.%08d", path, part);
            else snprintf(name, sizeof name, "%s", path);
            MPI_Barrier(MPI_COMM_WORLD);
            double begun = MPI_Wtime();
            int fd = open(name, direct | (is_write ? O_RDWR | O_CREAT : O_RDONLY), 0600);
            if (fd < 0)
                die("open() failed");
            double opened = MPI_Wtime();
            double moved = transfer(fd, is_write, block, block_bytes, own_files ? 0 : part * (off_t)size_bytes, size_bytes);
            if (!is_write && block[0] != part + 1)
                die("read what nobody wrote");
            memset(block, rank + 1, block_bytes);
            close(fd);
            double mine[4] = {opened - begun, moved - opened, MPI_Wtime() - moved, MPI_Wtime() - begun}, all[4];
            MPI_Reduce(mine, all, 4, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
            if (!rank)
                printf("%-9s %-10.2f %-10.2f %-11.6f %-10.2f %-10.2f %-10.6f %-10.6f %-10.6f %-10.6f %-4d\n",
                       is_write ? "write" : "read", tasks * (double)size_bytes / 1048576 / all[3],
                       tasks * (double)size_bytes / block_bytes / all[1], all[1] * block_bytes / size_bytes,
                       size_bytes / 1024.0, block_bytes / 1024.0, all[0], all[1], all[2], all[3], iteration);
        }
    MPI_Barrier(MPI_COMM_WORLD);
    if (!keeps && (own_files || !rank)) {
        char name[4096];
        if (own_files) snprintf(name, sizeof name, "%s.%08d", path, rank);
        else snprintf(name, sizeof name, "%s", path);
        unlink(name);
    }
    if (!rank)
        printf("Finished            : Fri Nov 20 00:00:00 2026\n");
    free(block);
    MPI_Finalize();
    return 0;
}
