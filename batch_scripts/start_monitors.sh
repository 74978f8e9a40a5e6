#!/bin/bash
#SBATCH --job-name=aifbench-monitors
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:00:00
# Prometheus, Grafana, Loki with a log shipper, and the OpenTelemetry Collector on one node, wired together. Each is
# optional: what is neither an image nor a program here is named, and the rest works.
# By hand: `bash batch_scripts/start_monitors.sh`, or `sbatch` it from the project's directory.
#
# Prometheus, Grafana and the Collector ask for the job's secret (users `aifbench` and `admin`, and as a bearer
# token) and listen on the announced address; Loki asks for nothing and listens on the loopback alone.
# The variables it understands are listed in lib/service.sh (AIFBENCH_PORT is Prometheus's); and
#   AIFBENCH_RETENTION    how long Prometheus keeps what it has seen    (default: 2d)
#   AIFBENCH_SERVICES     the directory of all services                 (default: where this job's directory is)
set -eu
# sbatch runs a copy of this file, so its own place tells nothing there.
for lib in "${AIFBENCH_HOME:-}/batch_scripts/lib" "$(dirname "$0")/lib" "${SLURM_SUBMIT_DIR:-.}/batch_scripts/lib"; do
    [ ! -f "$lib/service.sh" ] || break
done
# shellcheck source=batch_scripts/lib/service.sh
. "$lib/service.sh"

WATCH_S=2     # between two looks at what should run
MAX_RESTARTS=5 # of one part

use_job_dir
use_addresses
use_secret
auth=token
services=${AIFBENCH_SERVICES:-${AIFBENCH_JOB_DIR:+$(dirname "$job_dir")}}
services=${services:-${AIFBENCH_RESULTS:-$AIFBENCH_HOME/results}/services}
targets_dir=$services/targets
config_dir=$job_dir/config
(umask 077 && mkdir -p "$services" "$targets_dir" "$config_dir")
export PYTHONPATH=$AIFBENCH_HOME/src
python=("${AIFBENCH_PYTHON:-python3}")
dashboards=$AIFBENCH_HOME/utils/grafana-dashboards
container_options=(--bind "$targets_dir" --bind "$dashboards")
with_password=yes
"${python[@]}" -m aifbench.monitor.web_auth "$secret_file" "$config_dir/web.yml" \
    "$targets_dir/exporter-secret" "$targets_dir/exporter-web.yml" || with_password=no

declare -A part_command part_pid part_port restarts

# use_part PART PROGRAM: whether it can run here; its command is then in `part_command`, one word a line.
use_part() {
    if ! has_runtime "$1" "$2"; then
        # src/aifbench/servers/monitors_log.py reads this line.
        note "part $1 missing: no image $1.sif, no program $2"
        return 1
    fi
    use_runtime "$1" "$2"
    # Its image has it where PATH does not lead to.
    [ "$1" != otel-collector ] || [ ${#command[@]} = 1 ] || command[${#command[@]} - 1]=/otelcol-contrib
    part_command[$1]=$(printf '%s\n' "${command[@]}")
}

find_parts() {
    parts=() promtool=()
    if [ "$with_password" = no ]; then
        note "part prometheus missing: no password can be asked for: pip install bcrypt"
    elif use_part prometheus prometheus; then
        parts+=(prometheus)
        promtool=("${command[@]}")
        promtool[${#promtool[@]} - 1]=${promtool[${#promtool[@]} - 1]%prometheus}promtool
        prometheus_version=$("${command[@]}" --version 2>&1 | sed -n '1s/^prometheus, version \([0-9.]*\).*/\1/p')
    fi
    # Other programs are called loki, too.
    if ! program_says loki 'loki, version'; then
        note "part loki missing: no image loki.sif, and the program loki here is another one"
    elif use_part loki loki; then
        parts+=(loki)
    fi
    if use_part otel-collector otelcol-contrib; then parts+=(otel-collector); fi
    if use_part grafana grafana; then parts+=(grafana); fi
    [ ${#parts[@]} -gt 0 ] || die "nothing to monitor with: utils/sif-images/pull_images.sh pulls the images," \
        "or install your distribution's prometheus"
}

# program_says PROGRAM WORDS: false only where a native PROGRAM would run, and its --version does not say WORDS.
program_says() {
    local program
    if [ -e "${AIFBENCH_IMAGES:-$AIFBENCH_HOME/utils/sif-images}/$1.sif" ] && find_container_tool; then return 0; fi
    program=$(find_program "$1") || return 0
    "$program" --version 2>&1 | grep -q "$2"
}

# choose_ports: a port for every part, all different; those that were chosen once are kept, as others know them.
choose_ports() {
    local part port used=' '
    for part in "${parts[@]}" loki-grpc; do
        case $part in
        prometheus) port=$(choose_port) ;;
        *) port=$(AIFBENCH_PORT='' choose_port) ;;
        esac
        while [[ $used == *" $port "* ]]; do port=$(AIFBENCH_PORT='' choose_port); done
        used+="$port "
        part_port[$part]=$port
    done
}

has_part() { [[ " ${parts[*]} " == *" $1 "* ]]; }

write_configuration() {
    local part ports=()
    for part in "${parts[@]}"; do
        case $part in
        otel-collector) ports+=("otlp=${part_port[$part]}") ;;
        loki) ports+=("loki=${part_port[loki]}" "loki-grpc=${part_port[loki-grpc]}") ;;
        *) ports+=("$part=${part_port[$part]}") ;;
        esac
    done
    "${python[@]}" -m aifbench.monitor.configure "$config_dir" "$data_dir" "$targets_dir" "$secret_file" "$bind" \
        "${ports[@]}" || die "the configuration cannot be written"
}

# accepts_configuration: whether Prometheus takes prometheus.yml as it is now; what it says is in `refusal`.
accepts_configuration() {
    refusal=$("${promtool[@]}" check config "$config_dir/prometheus.yml" 2>&1) && return 0
    refusal=$(grep -v '^Checking' <<<"$refusal" | tr -s ' \n' ' ')
    return 1
}

# run_part PART: becomes it.
run_part() {
    [ -z "${part_command[$1]:-}" ] || mapfile -t words <<<"${part_command[$1]}"
    case $1 in
    prometheus)
        local more=()
        ! has_part otel-collector || more=(--web.enable-remote-write-receiver)
        exec "${words[@]}" --config.file="$config_dir/prometheus.yml" --web.config.file="$config_dir/web.yml" \
            --web.listen-address="$bind:${part_port[prometheus]}" --storage.tsdb.path="$data_dir/prometheus" \
            --storage.tsdb.retention.time="${AIFBENCH_RETENTION:-2d}" --storage.tsdb.retention.size=5GB \
            --log.level=warn "${more[@]}"
        ;;
    loki) exec "${words[@]}" -config.file="$config_dir/loki.yml" ;;
    otel-collector) exec "${words[@]}" --config="$config_dir/otel-collector.yml" ;;
    grafana)
        cd "$data_dir"
        exec "${words[@]}" server --config="$config_dir/grafana.ini" --homepath="$(grafana_home)"
        ;;
    targets)
        AIFBENCH_RESULTS=$(dirname "$services") exec "${python[@]}" -c \
            'from aifbench.session import Session; Session().keep_targets()'
        ;;
    log-shipper)
        exec "${python[@]}" -m aifbench.monitor.shipper "$services" \
            "http://127.0.0.1:${part_port[loki]}" "$data_dir/log-shipper.json"
        ;;
    esac
}

# grafana_home: prints where its static files are.
grafana_home() {
    local program home
    program=$(readlink -f "${words[${#words[@]} - 1]}")
    for home in "$(dirname "$(dirname "$program")")" /usr/share/grafana; do
        [ ! -d "$home/public" ] || break
    done
    printf '%s\n' "$home"
}

# start_part PART: false when it ended at once, or when its port is somebody else's.
start_part() {
    start run_part "$1"
    part_pid[$1]=$started_pid
    [ -z "${part_port[$1]:-}" ] || listens_soon "$started_pid" "${part_port[$1]}"
}

start_parts() {
    local part
    for part in "${parts[@]}"; do
        if ! start_part "$part" && is_taken "${part_port[$part]}"; then
            note "port ${part_port[$part]} of $part was taken by somebody else meanwhile"
            return 1
        fi
        [ "$part" != prometheus ] || group_lives "${part_pid[prometheus]}" || die "prometheus ended at once"
    done
}

end_parts() {
    local part
    for part in "${!part_pid[@]}"; do end_group "${part_pid[$part]}"; done
}

# start_all: ports, configuration and every part; again with other ports when somebody was faster to take one.
start_all() {
    local attempt=0
    while [ $((attempt += 1)) -le "$SERVE_ATTEMPTS" ]; do
        choose_ports
        write_configuration
        if has_part prometheus && ! accepts_configuration; then die "prometheus refuses its configuration: $refusal"; fi
        if start_parts; then return 0; fi
        end_parts
    done
    die "monitors found a port taken $SERVE_ATTEMPTS times"
}

# look_after PART: starts it again where it has ended; gives it up after some times.
look_after() {
    local part=$1
    if group_lives "${part_pid[$part]}"; then return 0; fi
    restarts[$part]=$((${restarts[$part]:-0} + 1))
    if [ "${restarts[$part]}" -gt "$MAX_RESTARTS" ]; then
        note "part $part failed: it ended $MAX_RESTARTS times"
        [ "$part" != prometheus ] || die "prometheus ended $MAX_RESTARTS times"
        unset "part_pid[$part]"
        return 0
    fi
    note "part $part ended and is started again"
    start_part "$part" || true
}

# reload_when_changed: Prometheus takes a configuration that somebody has edited, where promtool finds nothing wrong.
reload_when_changed() {
    local now
    now=$(stat -c %Y.%i.%s "$config_dir/prometheus.yml" 2>/dev/null) || return 0
    [ "$now" != "$configuration" ] || return 0
    configuration=$now
    if accepts_configuration; then
        note "prometheus takes its changed configuration"
        kill -HUP -- "-${part_pid[prometheus]}"
    else
        note "prometheus keeps its configuration; the changed one is refused: $refusal"
    fi
}

find_parts
start_all
! has_part loki || start_part log-shipper
start_part targets

ports=()
for part in grafana loki; do ! has_part "$part" || ports+=("$part=${part_port[$part]}"); done
! has_part otel-collector || ports+=("otlp=${part_port[otel-collector]}")
version=${prometheus_version:+prometheus $prometheus_version}
start_exporters
announce monitors "${part_port[prometheus]:-none}" "${ports[@]}"

configuration=$(stat -c %Y.%i.%s "$config_dir/prometheus.yml" 2>/dev/null || true)
while :; do
    sleep "$WATCH_S" &
    wait "$!" || true
    [ -d "$config_dir" ] || die "the directory of this job is gone, so nobody can find these monitors any more"
    for part in "${!part_pid[@]}"; do look_after "$part"; done
    ! has_part prometheus || reload_when_changed
done
