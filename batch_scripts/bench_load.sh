#!/bin/bash
#SBATCH --job-name=aifbench-load
#SBATCH --time=01:00:00
#SBATCH --no-requeue
# Load workers: one process per task, all following the plan in the directory AIFBENCH_PLAN. A worker
# takes its index from SLURM_PROCID. The program submits this; a person rarely needs to.
#   AIFBENCH_HOME              the project's checkout
#   AIFBENCH_PLAN              what to do (src/aifbench/load/plan.py)
#   AIFBENCH_PYTHON            the interpreter that has numpy            (default: python3)
#   AIFBENCH_WORKERS_PER_NODE  how many workers on each node             (default: 1)
set -eu

: "${AIFBENCH_HOME:?set it to the project checkout}" "${AIFBENCH_PLAN:?set it to the directory of a plan}"
export PYTHONPATH=$AIFBENCH_HOME/src
workers=${AIFBENCH_WORKERS_PER_NODE:-1}
worker=("${AIFBENCH_PYTHON:-python3}" -m aifbench.load.worker "$AIFBENCH_PLAN")

if [ "${AIFBENCH_SCHEDULER:-}" != local ] && [ -n "${SLURM_JOB_ID:-}" ] && command -v srun >/dev/null; then
    # --overlap: share the allocation with other steps. -c: srun does not take it from the job in every version.
    # --kill-on-bad-exit=0: one lost worker must not take the others' measurements with it.
    # --ntasks: else srun would take the number from the job's own variables.
    nodes=$SLURM_JOB_NUM_NODES
    # What the nodes do meanwhile. Ends with the job; -S: it needs nothing that is installed.
    srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --overlap --cpu-bind=none --kill-on-bad-exit=0 \
        "${AIFBENCH_PYTHON:-python3}" -S -m aifbench.monitor.sampler "$AIFBENCH_PLAN" </dev/null >/dev/null 2>&1 &
    exec srun --nodes="$nodes" --ntasks="$((nodes * workers))" --ntasks-per-node="$workers" \
        -c "${SLURM_CPUS_PER_TASK:-1}" --overlap --kill-on-bad-exit=0 "${worker[@]}"
fi

pids=()
trap 'kill ${pids[@]+"${pids[@]}"} 2>/dev/null; exit 143' TERM INT HUP
for ((index = 0; index < workers; index++)); do
    SLURM_PROCID=$index SLURM_LOCALID=$index "${worker[@]}" &
    pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
