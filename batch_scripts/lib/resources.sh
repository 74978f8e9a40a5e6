# shellcheck shell=bash
# What this node does while the service runs, sampled once a second into the job's directory.

# sample_resources: starts the sampler as a process that ends with this script. A node without a python that can
# run it has no samples; that is told where they are missed, and is no reason not to serve.
sample_resources() {
    local python=${AIFBENCH_PYTHON:-python3}
    command -v "$python" >/dev/null || return 0
    start env PYTHONPATH="$AIFBENCH_HOME/src" "$python" -S -m aifbench.monitor.sampler "$job_dir" $$ >/dev/null 2>&1
}
