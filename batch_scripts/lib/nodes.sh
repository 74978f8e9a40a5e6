# shellcheck shell=bash
# One process on every node of the job, living and dying together.

# use_nodes: sets `nodes`. By hand and under the local scheduler every "node" is a process of this machine.
use_nodes() {
    nodes=${AIFBENCH_NODES:-1}
    is_slurm=no
    if [ "${AIFBENCH_SCHEDULER:-}" != local ] && [ -n "${SLURM_JOB_NUM_NODES:-}" ] && command -v srun >/dev/null; then
        is_slurm=yes
        nodes=$SLURM_JOB_NUM_NODES
    fi
}

# on_every_node LABEL COMMAND...: runs COMMAND by rank.sh, rank 0 on this node; returns when the first of
# them has ended. To be called as, or in, a process of its own: `start` or `&`.
on_every_node() {
    local rank status=0 pids=()
    export AIFBENCH_RANKS=$nodes AIFBENCH_HEAD_ADDRESS=$address AIFBENCH_JOB_DIR=$job_dir
    if [ "$is_slurm" = yes ]; then
        AIFBENCH_HEAD_NODE=$(uname -n)
        export AIFBENCH_HEAD_NODE
        # --overlap: share the allocation with other steps. --cpu-bind=none: every CPU of the job, not one.
        # --ntasks: else srun would take the number from the job's own variables.
        exec srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --overlap --cpu-bind=none \
            --kill-on-bad-exit=1 bash "$lib/rank.sh" "$@"
    fi
    set +m
    trap : TERM # ends the `wait -n`, and not this process before it has seen the others off
    for ((rank = 0; rank < nodes; rank++)); do
        AIFBENCH_RANK=$rank bash "$lib/rank.sh" "$@" &
        pids+=($!)
    done
    wait -n || status=$?
    trap '' TERM
    kill "${pids[@]}" 2>/dev/null || true
    wait
    return "$status"
}

# other_port PORT: prints a free port that is not PORT.
other_port() {
    local port=$1
    while [ "$port" = "$1" ]; do port=$(AIFBENCH_PORT='' choose_port); done
    printf '%s\n' "$port"
}

# gpus_here: prints how many GPUs this job may use on this node.
gpus_here() {
    local found devices=(/dev/nvidia[0-9]*)
    if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
        found=$SLURM_GPUS_ON_NODE
    elif [ "${CUDA_VISIBLE_DEVICES+set}" ]; then
        found=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c '[^[:blank:]]' || true)
    elif [ -e "${devices[0]}" ]; then
        found=${#devices[@]}
    else
        found=0
    fi
    printf '%s\n' "$found"
}
