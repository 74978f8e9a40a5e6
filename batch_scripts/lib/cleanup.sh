# shellcheck shell=bash
# Whatever ends this script ends what it started: SIGTERM first, SIGKILL after END_GRACE_S.

END_GRACE_S=4
started=()       # process ids, each the leader of its own process group
remove_at_end=() # temporary directories

# start COMMAND...: run it in the background as a process group; its id is in `$started_pid`.
start() {
    set -m
    "$@" </dev/null &
    started_pid=$!
    set +m
    started+=("$started_pid")
}

# group_lives PID: whether any process of that group is left.
group_lives() { kill -0 -- "-$1" 2>/dev/null; }

end_group() {
    local pid=$1 rounds=$((END_GRACE_S * 10))
    kill -TERM -- "-$pid" 2>/dev/null || return 0
    while group_lives "$pid" && [ $((rounds -= 1)) -gt 0 ]; do
        sleep 0.1
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
}

finish() {
    local status=$?
    trap - EXIT
    trap '' TERM INT HUP
    local pid
    for pid in ${started[@]+"${started[@]}"}; do end_group "$pid"; done
    [ ${#remove_at_end[@]} -eq 0 ] || rm -rf -- "${remove_at_end[@]}"
    exit "$status"
}

trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP
