# shellcheck shell=bash
# What start_vllm.sh decides before it starts vLLM. Sets variables; prints notes, never a secret.

# use_caches: downloads and compiled kernels outlive the job, and stay out of small home directories.
use_caches() {
    local mine=${AIFBENCH_CACHE_DIR:-${SCRATCH:-$HOME/.cache}/aifbench/cache}
    mkdir -p "$mine" || die "cannot make the cache directory $mine"
    cache_dir=$(cd "$mine" && pwd)
    container_options+=(--bind "$cache_dir")
    pass_to_service VLLM_CACHE_ROOT "${VLLM_CACHE_ROOT:-$cache_dir/vllm}"
    pass_to_service TRITON_CACHE_DIR "${TRITON_CACHE_DIR:-$cache_dir/triton}"
    pass_to_service TORCHINDUCTOR_CACHE_DIR "${TORCHINDUCTOR_CACHE_DIR:-$cache_dir/torchinductor}"
    pass_to_service FLASHINFER_WORKSPACE_BASE "${FLASHINFER_WORKSPACE_BASE:-$cache_dir}"
    # On somebody's own machine models are where other programs have put them.
    if [ -n "${HF_HOME:-}" ] || [ "$is_slurm" = yes ]; then
        pass_to_service HF_HOME "${HF_HOME:-$cache_dir/huggingface}"
        mkdir -p "$HF_HOME" || die "cannot make HF_HOME, $HF_HOME"
        container_options+=(--bind "$HF_HOME")
    fi
    pass_to_service VLLM_NO_USAGE_STATS 1
    pass_to_service DO_NOT_TRACK 1
}

# use_model: sets `model`; a folder must be there, and is bound into a container.
use_model() {
    model=${AIFBENCH_VLLM_MODEL:-tiny}
    case $model in
    tiny) model=$cache_dir/tiny ;;
    /* | ./* | ../*)
        [ -d "$model" ] || die "model folder $model does not exist on $(uname -n)"
        [ -e "$model/config.json" ] || [ -e "$model/params.json" ] ||
            die "model folder $model has no config.json: it holds no model"
        model=$(cd "$model" && pwd)
        # In Hugging Face's cache a snapshot is links to files beside it.
        container_options+=(--bind "${model%/snapshots/*}")
        ;;
    *) return ;;
    esac
    # Nothing is to be fetched for a folder, and asking would take minutes where there is no way out.
    pass_to_service HF_HUB_OFFLINE 1
}

# use_hf_token: a Hugging Face token goes into the container by its environment or as a file.
use_hf_token() {
    local file=${AIFBENCH_HF_TOKEN_FILE:-}
    if [ -n "$file" ]; then
        [ -r "$file" ] || die "cannot read the Hugging Face token file $file"
        [ -s "$file" ] || die "the Hugging Face token file $file is empty"
        unset HF_TOKEN HUGGING_FACE_HUB_TOKEN
    elif [ -n "${HF_TOKEN:-}" ]; then
        pass_to_service HF_TOKEN "$HF_TOKEN"
        return
    else
        # Where `hf auth login` has put it; HF_HOME may be another directory now.
        file=${HF_TOKEN_PATH:-$HOME/.cache/huggingface/token}
        [ -s "$file" ] || return 0
    fi
    pass_to_service HF_TOKEN_PATH "$file"
    container_options+=(--bind "$file")
}

# use_vllm: sets `command`, `python_command`, `version`, `gpus` and `device`; makes the tiny model if that is asked.
use_vllm() {
    local here
    here=$(gpus_here)
    gpus=${AIFBENCH_VLLM_GPUS:-$here}
    if [ "$gpus" -gt 0 ] && [ "$here" -gt 0 ]; then container_options+=(--nv); fi
    container_options+=(--bind "$AIFBENCH_HOME/utils/vllm-cpu" --bind "$lib")
    # shellcheck disable=SC2034 # use_runtime reads it
    install_hint='utils/vllm-cpu/install makes one for machines without GPU'
    [ -z "${AIFBENCH_VLLM_VENV:-}" ] || AIFBENCH_VENV=$AIFBENCH_VLLM_VENV
    PATH=$PATH:$HOME/.cache/aifbench/vllm-cpu/bin
    use_runtime vllm vllm
    device=gpu
    case $version in *cpu*) device=cpu ;; esac
    if [ "$device" = gpu ] && [ "$gpus" -gt "$here" ]; then
        die "$gpus GPUs a node were asked for, and this job has $here on $(uname -n)"
    fi
    if [ "$gpus" -eq 0 ]; then device=cpu; fi
    if [ "$model" = "$cache_dir/tiny" ]; then
        "${python_command[@]}" "$AIFBENCH_HOME/utils/vllm-cpu/make_tiny_model.py" "$model" >&2 ||
            die "cannot make the tiny model in $model"
    fi
}

# use_parallel: sets `tp`, `pp` and `executor`. On CPUs vLLM 0.32 dies in its first step with pp > 1.
use_parallel() {
    local per_node=$gpus world
    if [ "$per_node" -eq 0 ]; then per_node=1; fi
    if [ "$device" = cpu ]; then pp=${AIFBENCH_VLLM_PP:-1}; else pp=${AIFBENCH_VLLM_PP:-$nodes}; fi
    tp=${AIFBENCH_VLLM_TP:-$((nodes * per_node / pp))}
    world=$((tp * pp))
    if [ "$world" -eq 0 ] || [ $((world % nodes)) -ne 0 ]; then
        die "tensor x pipeline parallel = $tp x $pp cannot be spread over $nodes nodes with $per_node GPUs each"
    fi
    if [ "$device" = gpu ] && [ $((world / nodes)) -gt "$gpus" ]; then
        die "tensor x pipeline parallel = $tp x $pp on $nodes nodes needs $((world / nodes)) GPUs a node," \
            "and this job has $gpus on $(uname -n)"
    fi
    executor=${AIFBENCH_VLLM_EXECUTOR:-mp}
    [ "$device $executor" != 'cpu ray' ] || die "cannot use Ray on CPUs: vLLM has that for GPUs only; use --executor mp"
    note "tensor parallel $tp x pipeline parallel $pp on $nodes node(s), $device, executor $executor"
}

# use_arguments PORT: sets `arguments`, what follows `vllm serve MODEL`. A later one wins: the user's come last.
use_arguments() {
    local given=()
    arguments=(--host "$bind" --port "$1" --tensor-parallel-size "$tp" --pipeline-parallel-size "$pp"
        --disable-uvicorn-access-log)
    case $model in
    */models--*/snapshots/*) arguments+=(--served-model-name "$(cached_name "$model")") ;;
    /*) arguments+=(--served-model-name "${model##*/}") ;;
    esac
    if [ "$device" = cpu ]; then
        pass_to_service VLLM_CPU_KVCACHE_SPACE "${VLLM_CPU_KVCACHE_SPACE:-1}"
        # Processes of one machine would else be bound to the same cores.
        if [ "$is_slurm" = no ] && [ $((tp * pp)) -gt 1 ]; then
            pass_to_service VLLM_CPU_OMP_THREADS_BIND "${VLLM_CPU_OMP_THREADS_BIND:-nobind}"
        fi
        arguments+=(--enforce-eager)
    fi
    [ -z "${AIFBENCH_VLLM_ARGS:-}" ] || mapfile -t given <<<"$AIFBENCH_VLLM_ARGS"
    arguments+=(${given[@]+"${given[@]}"})
}

# cached_name DIRECTORY: the model's own name, from its place in Hugging Face's cache.
cached_name() {
    local name=${1%/snapshots/*}
    name=${name##*/models--}
    printf '%s\n' "${name/--//}"
}

# serve_by_ray PORT: Ray on every node, then vLLM here; ends when any of them does.
serve_by_ray() {
    local port ray_token ray=("${python_command[@]}" -m ray.scripts.scripts start --block --disable-usage-stats)
    port=$(other_port "$1")
    ray_token=$data_dir/ray-token
    (umask 077 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$ray_token") || die "cannot write $ray_token"
    pass_to_service RAY_AUTH_MODE token
    pass_to_service RAY_AUTH_TOKEN_PATH "$ray_token"
    pass_to_service RAY_ADDRESS "$address:$port"
    pass_to_service VLLM_HOST_IP "$address"
    # A socket's path in it must not be long.
    export AIFBENCH_RANK_TEMP=/tmp/aifb-ray-$SLURM_JOB_ID
    set +m
    on_every_node ray "${ray[@]}" --node-ip-address '{address}' --num-gpus "$gpus" \
        --first-- --head --port "$port" --include-dashboard=false --temp-dir "$AIFBENCH_RANK_TEMP" \
        --others-- --address "$address:$port" &
    # It, too, ends when Ray has ended on any node.
    "${python_command[@]}" "$lib/await_ray.py" "$address:$port" "$nodes" "${AIFBENCH_RAY_WAIT_S:-180}" || exit 1
    "${command[@]}" serve "$model" "${arguments[@]}" --distributed-executor-backend ray &
    wait -n
}
