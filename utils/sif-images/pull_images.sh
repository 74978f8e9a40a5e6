#!/bin/bash
#SBATCH --job-name=aifbench-images
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=00:30:00
# Pull the container images of images.list (all, or those named) as NAME.sif.
#
#   utils/sif-images/pull_images.sh [NAME...]       where apptainer is, e.g. inside a job
#   sbatch ACCOUNT-OPTIONS utils/sif-images/pull_images.sh     where login nodes have no apptainer (MeluXina)
#   utils/sif-images/pull_images.sh --check         compare the images with their recorded checksums
#
# Run it again after an interruption: images that are complete and of the listed version are kept.
# Beside NAME.sif it writes NAME.sif.source (the reference) and NAME.sif.sha256 (for `sha256sum -c`).
#   AIFBENCH_IMAGES       where the images go             (default: this directory)
#   APPTAINER_CACHEDIR    where layers are cached         (default: AIFBENCH_IMAGES/.cache)
set -eu

die() {
    echo "pull_images: $*" >&2
    exit 1
}

# sbatch runs a copy of this file, so its own place tells nothing there.
for here in "${AIFBENCH_HOME:-}/utils/sif-images" "$(dirname "$0")" "${SLURM_SUBMIT_DIR:-.}/utils/sif-images" \
    "${SLURM_SUBMIT_DIR:-.}"; do
    [ ! -f "$here/images.list" ] || break
done
list=$(cd "$here" && pwd)/images.list
[ -f "$list" ] || die "images.list not found; run this from the project's directory or set AIFBENCH_HOME"
images=${AIFBENCH_IMAGES:-$(dirname "$list")}
mkdir -p "$images"
cd "$images"

check_images() {
    set -- *.sif.sha256
    [ -e "$1" ] || die "no image in $images yet"
    sha256sum -c "$@"
}

find_tool() {
    tool=$(command -v apptainer || command -v singularity) && return
    local loader
    loader=$(dirname "$list")/../../load_modules.sh
    if [ -f "$loader" ]; then
        set +u # the modules' own scripts use unset variables
        # shellcheck source=/dev/null
        . "$loader" >&2 || true
        set -u
    fi
    tool=$(command -v apptainer || command -v singularity) ||
        die "no apptainer here. Where only compute nodes have it, submit this script:" \
            "sbatch -A ACCOUNT -p PARTITION -q QOS $(dirname "$list")/pull_images.sh"
}

is_complete() { # NAME SOURCE
    [ -f "$1.sif" ] && [ -f "$1.sif.sha256" ] && [ "$(cat "$1.sif.source" 2>/dev/null)" = "$2" ]
}

pull() { # NAME SOURCE
    if is_complete "$1" "$2"; then
        echo "$1.sif: is there ($2)"
        return
    fi
    echo "$1.sif: pulling $2"
    rm -f "$1.sif.sha256" "$1.sif.part"
    # The checksum comes last, because it marks the image as complete.
    "$tool" pull "$1.sif.part" "$2" &&
        mv "$1.sif.part" "$1.sif" &&
        echo "$2" >"$1.sif.source" &&
        sha256sum "$1.sif" >"$1.sif.sha256.part" &&
        mv "$1.sif.sha256.part" "$1.sif.sha256" &&
        echo "$1.sif: $(cut -c 1-64 "$1.sif.sha256")"
}

is_wanted() { # NAME WANTED...
    local name=$1 wanted
    shift
    [ $# -gt 0 ] || return 0
    for wanted in "$@"; do [ "$wanted" != "$name" ] || return 0; done
    return 1
}

case ${1:-} in
-h | --help)
    sed -n '6,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit
    ;;
--check)
    check_images
    exit
    ;;
-*) die "unknown option $1; see --help" ;;
esac

for name in "$@"; do
    grep -q "^${name}[[:blank:]]" "$list" || die "no image '$name' in $list"
done
find_tool
export APPTAINER_CACHEDIR=${APPTAINER_CACHEDIR:-$images/.cache}
export SINGULARITY_CACHEDIR=${SINGULARITY_CACHEDIR:-$APPTAINER_CACHEDIR}
mkdir -p .cache
exec 9>.cache/lock
# A second pull waits, then finds everything there. Some file systems have no locks.
flock 9 || echo "pull_images: cannot lock $images; make sure that nobody else pulls into it" >&2
failed=''
while read -r name source; do
    case $name in '' | '#'*) continue ;; esac
    if ! is_wanted "$name" "$@"; then continue; fi
    pull "$name" "$source" </dev/null || failed+=" $name"
done <"$list"
[ -z "$failed" ] || die "could not pull:$failed; run it again to go on"
