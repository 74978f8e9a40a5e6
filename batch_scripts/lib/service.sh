# shellcheck shell=bash
# What every start_<service>.sh shares. Sourced after `set -eu`, with `lib` naming this directory.
#
# Under Slurm, under the local scheduler and by hand the same script runs; what differs is in these
# variables, all optional:
#   AIFBENCH_HOME         the project's checkout
#   AIFBENCH_JOB_DIR      directory of this job: secret, scratch files
#   AIFBENCH_DATA_DIR     where the service keeps its data           (default: JOB_DIR/data)
#   AIFBENCH_SECRET_FILE  the service's secret, made when absent     (default: JOB_DIR/secret)
#   AIFBENCH_IMAGES       directory with <service>.sif images        (default: HOME/utils/sif-images)
#   AIFBENCH_VENV, AIFBENCH_PYTHON  where native programs are looked for first
#   AIFBENCH_BIND         address to listen on
#   AIFBENCH_INTERFACE    network interface whose address is announced (default: ib0 when it exists)
#   AIFBENCH_PORT         port to listen on                          (default: a free one)
#   AIFBENCH_SCHEDULER    `local` under the local scheduler
#   AIFBENCH_EXPORTERS    1: node and GPU exporters run beside the service

PATH=$PATH:/usr/sbin:/sbin # `ip` lives there on some systems
AIFBENCH_HOME=${AIFBENCH_HOME:-$(cd "$lib/../.." && pwd)}
export AIFBENCH_HOME PATH

SLURM_JOB_ID=${SLURM_JOB_ID:-$$}
SLURM_RESTART_COUNT=${SLURM_RESTART_COUNT:-0}
# Without Slurm this is somebody's own machine: listen to nobody else unless told to.
if [ "${AIFBENCH_SCHEDULER:-}" = local ] || [ -z "${SLURM_JOB_NODELIST:-}" ]; then
    AIFBENCH_BIND=${AIFBENCH_BIND:-127.0.0.1}
fi

note() { printf 'aifbench: %s\n' "$*" >&2; }

die() {
    note "$*"
    exit 1
}

# shellcheck source=batch_scripts/lib/cleanup.sh
. "$lib/cleanup.sh"
# shellcheck source=batch_scripts/lib/files.sh
. "$lib/files.sh"
# shellcheck source=batch_scripts/lib/network.sh
. "$lib/network.sh"
# shellcheck source=batch_scripts/lib/runtime.sh
. "$lib/runtime.sh"
# shellcheck source=batch_scripts/lib/exporters.sh
. "$lib/exporters.sh"
# shellcheck source=batch_scripts/lib/announce.sh
. "$lib/announce.sh"
# shellcheck source=batch_scripts/lib/resources.sh
. "$lib/resources.sh"
# shellcheck source=batch_scripts/lib/serve.sh
. "$lib/serve.sh"
