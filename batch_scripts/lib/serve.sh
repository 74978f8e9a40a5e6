# shellcheck shell=bash
# Start a service on a free port, announce it, and live as long as it does.

SERVE_ATTEMPTS=4      # the first, and three more when somebody was faster to take the port
SERVE_LISTEN_ROUNDS=100 # tenths of a second; a service that takes longer to listen is announced before it does

more_ports=() # NAME=PORT of what else the service listens on

# serve SERVICE: runs `service_command PORT`, a function that ends with the service; exits as the service does.
serve() {
    local service=$1 attempt=0 port
    sample_resources
    start_exporters
    while [ $((attempt += 1)) -le "$SERVE_ATTEMPTS" ]; do
        port=$(choose_port)
        start service_command "$port"
        if listens_soon "$started_pid" "$port"; then
            announce "$service" "$port" ${more_ports[@]+"${more_ports[@]}"}
            wait_for_service "$service"
        fi
        is_taken "$port" || wait_for_service "$service"
        note "port $port was taken by somebody else meanwhile"
    done
    die "$service found its port taken $SERVE_ATTEMPTS times"
}

# listens_soon GROUP PORT: false when the group ended first; true when it listens, or is still busy starting.
listens_soon() {
    local rounds=$SERVE_LISTEN_ROUNDS
    while group_lives "$1"; do
        if holds_port "$1" "$2" || [ $((rounds -= 1)) -le 0 ]; then return 0; fi
        sleep 0.1
    done
    return 1
}

# wait_for_service SERVICE: exits with its status. A service has no good reason to end by itself, so 0 becomes 1.
wait_for_service() {
    local status=0
    wait "$started_pid" || status=$?
    note "$1 ended by itself with status $status"
    [ "$status" -ne 0 ] || status=1
    exit "$status"
}
