#!/bin/bash
#SBATCH --job-name=aifbench-lustre
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=00:10:00
#SBATCH --no-requeue
# A directory of our own on the file system under test, and what every node of the job sees there: mount, type,
# free space, memory. This job makes it, tells, and ends; load comes from jobs of its own, and `stop` removes it.
# By hand: `AIFBENCH_FS_PATH=/scratch/me bash batch_scripts/start_lustre.sh`
# The variables it understands are listed in lib/service.sh; and
#   AIFBENCH_FS_PATH       an existing directory on the file system under test; the new one is called JOB-files
#   AIFBENCH_FS_TYPE       refuse any other type of file system, such as lustre
#   AIFBENCH_STRIPE_COUNT, AIFBENCH_STRIPE_SIZE  Lustre's striping of the new directory
set -eu
# sbatch runs a copy of this file, so its own place tells nothing there.
for lib in "${AIFBENCH_HOME:-}/batch_scripts/lib" "$(dirname "$0")/lib" "${SLURM_SUBMIT_DIR:-.}/batch_scripts/lib"; do
    [ ! -f "$lib/service.sh" ] || break
done
# shellcheck source=batch_scripts/lib/service.sh
. "$lib/service.sh"
# shellcheck source=batch_scripts/lib/nodes.sh
. "$lib/nodes.sh"

: "${AIFBENCH_FS_PATH:?set it to a directory on the file system under test}"
use_job_dir
use_addresses
use_nodes
auth=none version=
export PYTHONPATH=$AIFBENCH_HOME/src
survey=("${AIFBENCH_PYTHON:-python3}" -m aifbench.workloads.file_survey)
target=$AIFBENCH_FS_PATH/${SLURM_JOB_NAME:-aifbench-$SLURM_JOB_ID}-files

"${survey[@]}" make "$target" --owner "$SLURM_JOB_ID" ${AIFBENCH_FS_TYPE:+--type "$AIFBENCH_FS_TYPE"} \
    ${AIFBENCH_STRIPE_COUNT:+--stripe-count "$AIFBENCH_STRIPE_COUNT"} \
    ${AIFBENCH_STRIPE_SIZE:+--stripe-size "$AIFBENCH_STRIPE_SIZE"}
step=()
[ "$is_slurm" = no ] || step=(srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1)
if ! ${step[@]+"${step[@]}"} "${survey[@]}" look "$target" --into "$job_dir"; then
    "${survey[@]}" drop "$target"
    exit 1
fi

announce lustre none
