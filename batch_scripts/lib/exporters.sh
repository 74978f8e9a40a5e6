# shellcheck shell=bash
# Node and GPU exporters for Prometheus beside a service, where AIFBENCH_EXPORTERS=1. Each is optional, and
# whatever is wrong with one does the service no harm.

EXPORTER_ATTEMPTS=3
EXPORTER_LISTEN_ROUNDS=50 # tenths of a second
# What dashboards show; all collectors together would be some thousand series for every node.
NODE_COLLECTORS=(cpu diskstats filesystem infiniband loadavg meminfo netdev pressure stat time uname vmstat)

# start_exporters: starts those that can run here; `exporter_ports` then has `node=PORT` and `gpu=PORT`.
start_exporters() {
    exporter_ports=()
    [ "${AIFBENCH_EXPORTERS:-}" = 1 ] || return 0
    local web collector words=()
    web=$(exporter_web_file) || {
        note "exporter: none is started, because nothing here makes a password hash: pip install bcrypt"
        return 0
    }
    for collector in "${NODE_COLLECTORS[@]}"; do words+=("--collector.$collector"); done
    start_exporter node node-exporter "prometheus-node-exporter node_exporter" --web.disable-exporter-metrics \
        --collector.disable-defaults "${words[@]}" --web.config.file="$web" --log.level=warn --web.listen-address=
    [ ! -e /dev/nvidiactl ] ||
        start_exporter gpu dcgm-exporter dcgm-exporter --web-config-file "$web" --address=
}

# exporter_web_file: prints the file with the password hash, which all exporters of a user share, as copied to
# where a container sees it.
exporter_web_file() {
    local shared
    shared=$(dirname "$job_dir")/targets
    PYTHONPATH=$AIFBENCH_HOME/src "${AIFBENCH_PYTHON:-python3}" -m aifbench.monitor.web_auth \
        "$shared/exporter-secret" "$shared/exporter-web.yml" >&2 || return 1
    (umask 077 && cp "$shared/exporter-web.yml" "$job_dir/exporter-web.yml") || return 1
    printf '%s\n' "$job_dir/exporter-web.yml"
}

# start_exporter LABEL IMAGE PROGRAMS WORD...: the last word gets the address appended.
start_exporter() {
    local label=$1 image=$2 programs=$3 attempt=0 port program pid
    # A service has made these its own already.
    local command python_command version container_options=() kept=${started_pid:-}
    shift 3
    [ "$label" != gpu ] || container_options=(--nv)
    for program in $programs; do find_program "$program" >/dev/null && break; done
    if ! has_runtime "$image" "$program"; then
        note "exporter: no $label exporter: neither an image $image.sif nor a program $program"
        return 0
    fi
    use_runtime "$image" "$program"
    # A distribution may have its own name for it, and an image never has.
    [ ${#command[@]} = 1 ] || command[${#command[@]} - 1]=${programs##* }
    while [ $((attempt += 1)) -le "$EXPORTER_ATTEMPTS" ]; do
        port=$(AIFBENCH_PORT='' choose_port)
        start run_exporter "$job_dir/exporter-$label.log" "${command[@]}" "${@:1:$#-1}" "${*: -1}$bind:$port"
        pid=$started_pid
        started_pid=$kept
        if SERVE_LISTEN_ROUNDS=$EXPORTER_LISTEN_ROUNDS listens_soon "$pid" "$port"; then
            exporter_ports+=("$label=$port")
            return 0
        fi
    done
    note "exporter: the $label exporter does not run here: $(tail -n 1 "$job_dir/exporter-$label.log")"
}

# run_exporter LOG COMMAND...: becomes it; the service's own log is no place for its words.
run_exporter() {
    local log=$1
    shift
    exec "$@" >>"$log" 2>&1
}

# tell_exporters: for a node that announces nothing itself, a file in the job's directory says where they listen.
tell_exporters() {
    [ ${#exporter_ports[@]} -gt 0 ] || return 0
    local file more ports=''
    mkdir -p "$job_dir/exporters"
    file=$job_dir/exporters/$(uname -n)-${rank:-0}.json
    for more in "${exporter_ports[@]}"; do ports+="${ports:+, }\"${more%%=*}\": ${more#*=}"; done
    printf '{"node": "%s", "host": "%s", "restarts": %s, "ports": {%s}}\n' \
        "$(uname -n)" "$address" "$SLURM_RESTART_COUNT" "$ports" >"$file.part" && mv "$file.part" "$file"
}
