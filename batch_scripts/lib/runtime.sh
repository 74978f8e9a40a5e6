# shellcheck shell=bash
# Container or native: one decision, the same for every service.

container_options=() # further words for the container tool, such as --nv
install_hint='source env.sh installs it'

# use_runtime SERVICE PROGRAM [PACKAGE]: sets `command`, the words that run PROGRAM, `python_command`, those
# that run the Python it belongs to, and `version` if known.
# Prefers the image SERVICE.sif in AIFBENCH_IMAGES, and takes PROGRAM from the virtual environment or PATH.
use_runtime() {
    local image=${AIFBENCH_IMAGES:-$AIFBENCH_HOME/utils/sif-images}/$1.sif program
    if [ -e "$image" ] && find_container_tool; then
        # The host's environment stays outside; pass_to_service says what goes in.
        local container=("$container_tool" exec --cleanenv ${container_options[@]+"${container_options[@]}"}
            --bind "$job_dir" --bind "$data_dir" --pwd "$data_dir" "$image")
        command=("${container[@]}" "$2")
        python_command=("${container[@]}" python3)
        version=$(image_version "$image")
        note "running $image with $container_tool"
    elif program=$(find_program "$2"); then
        command=("$program")
        python_command=("$(interpreter_of "$program")")
        version=$(package_version "$program" "${3:-$2}")
        note "running $program"
    else
        die "cannot run $1: there is neither an image $image and apptainer to run it" \
            "(utils/sif-images/pull_images.sh pulls it), nor a program '$2' ($install_hint)"
    fi
}

# has_runtime SERVICE PROGRAM: whether use_runtime would find something to run.
has_runtime() {
    if [ -e "${AIFBENCH_IMAGES:-$AIFBENCH_HOME/utils/sif-images}/$1.sif" ] && find_container_tool; then return 0; fi
    find_program "$2" >/dev/null
}

find_container_tool() {
    local loader=$AIFBENCH_HOME/load_modules.sh
    container_tool=$(command -v apptainer || command -v singularity) && return 0
    # On compute nodes that offer it as a module. The modules' own scripts use unset variables.
    if [ -f "$loader" ]; then
        set +u
        # shellcheck source=/dev/null
        . "$loader" >&2 || true
        set -u
    fi
    container_tool=$(command -v apptainer || command -v singularity)
}

find_program() {
    local directory
    for directory in ${AIFBENCH_VENV:+"$AIFBENCH_VENV/bin"} ${AIFBENCH_PYTHON:+"$(dirname "$AIFBENCH_PYTHON")"}; do
        if [ -x "$directory/$1" ]; then
            printf '%s\n' "$directory/$1"
            return
        fi
    done
    command -v "$1"
}

# pass_to_service NAME VALUE: an environment variable for the service, inside a container too. Never on
# a command line, which every user of the node can read.
pass_to_service() {
    export "$1=$2" "APPTAINERENV_$1=$2" "SINGULARITYENV_$1=$2"
}

# image_version IMAGE: from the reference it was pulled by, which pull_images.sh keeps beside it.
image_version() { sed -n '1s/.*:v\{0,1\}\([0-9][0-9.]*\).*/\1/p' "$1.source" 2>/dev/null || true; }

# interpreter_of PROGRAM: the Python in its first line; nothing when it is no Python program.
interpreter_of() { sed -n '1s/^#!\(.*python[0-9.]*\)$/\1/p' "$1"; }

# package_version PROGRAM PACKAGE: of the Python package that installed PROGRAM, asked of its own interpreter.
package_version() {
    local python
    python=$(interpreter_of "$1")
    [ -z "$python" ] || "$python" -I -c 'import sys
from importlib.metadata import version
print(version(sys.argv[1]))' "$2" 2>/dev/null || true
}
