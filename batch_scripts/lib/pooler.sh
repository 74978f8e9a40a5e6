# shellcheck shell=bash
# PgBouncer between the clients and PostgreSQL, for start_postgres.sh.

POOLER_CLIENTS=10000       # as many as the limit on open files allows
POOLER_PREPARED_SINCE=1.21 # older ones lose prepared statements between two transactions

# use_pooler: sets pool_mode, empty for none, and with one `pooler`, the words that run it, and direct_port.
use_pooler() {
    pool_mode=${AIFBENCH_POSTGRES_POOLER:-}
    pool_size=${AIFBENCH_POSTGRES_POOL_SIZE:-50}
    case $pool_mode in
    '') return 0 ;;
    session | transaction) ;;
    *) die "AIFBENCH_POSTGRES_POOLER is '$pool_mode'; valid: session, transaction, or nothing for none" ;;
    esac
    local command python_command version install_hint='Debian: apt-get install pgbouncer' files
    use_runtime pgbouncer pgbouncer
    pooler=(${as_owner[@]+"${as_owner[@]}"} "${command[@]}")
    version=$("${pooler[@]}" --version | sed -n 's/^PgBouncer \([0-9][0-9.]*\).*/\1/p')
    [ -n "$version" ] || die "cannot run ${pooler[*]}"
    if [ "$pool_mode" = transaction ] && is_older "$version" "$POOLER_PREPARED_SINCE"; then
        die "cannot pool by transaction: PgBouncer $version is installed, and prepared statements outlive a" \
            "transaction only from $POOLER_PREPARED_SINCE on; use --pooler session, or a newer PgBouncer"
    fi
    files=$(ulimit -Hn)
    [ "$files" != unlimited ] || files=1048576
    pool_clients=$((files - pool_size - 100))
    if [ "$pool_clients" -gt "$POOLER_CLIENTS" ]; then pool_clients=$POOLER_CLIENTS; fi
    direct_port=$(AIFBENCH_PORT='' choose_port)
    more_ports=("postgres=$direct_port")
    # src/aifbench/servers/postgres_log.py reads this line.
    note "pooler PgBouncer $version: $pool_mode, $pool_size connections, $pool_clients clients"
}

# is_older A B: whether version A is below version B.
is_older() { [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# make_pooler_users: PgBouncer gets the very SCRAM secret that PostgreSQL keeps, not the password: with it,
# clients are checked without 4,096 rounds of hashing each, and are let through to PostgreSQL.
make_pooler_users() {
    local verifier
    verifier=$("${command[@]}" --single -D "$pgdata" postgres \
        <<<"SELECT rolpassword FROM pg_authid WHERE rolname = 'bench'" |
        sed -n 's/.*rolpassword = "\(SCRAM-SHA-256[^"]*\)".*/\1/p')
    [ -n "$verifier" ] || die "cannot read the SCRAM secret that PostgreSQL keeps for its user bench"
    printf '"bench" "%s"\n' "$verifier" | write_private "$data_dir/pgbouncer.users"
}

# write_private FILE: standard input, for whoever PgBouncer runs as and nobody else.
write_private() {
    (umask 077 && cat >"$1") || die "cannot write $1"
    [ ${#as_owner[@]} -eq 0 ] || chown --reference="$data_dir" "$1"
}

# make_pooler_configuration PORT
make_pooler_configuration() {
    local host=$bind prepared=''
    if [ "$host" = 0.0.0.0 ]; then host=127.0.0.1; fi
    # Only those versions know the setting that are let through with this mode; 1.24 made this its default.
    if [ "$pool_mode" = transaction ]; then prepared='max_prepared_statements = 200'; fi
    write_private "$data_dir/pgbouncer.ini" <<END
[databases]
* = host=$host port=$direct_port

[pgbouncer]
listen_addr = $bind
listen_port = $1
listen_backlog = 1024
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $data_dir/pgbouncer.users
admin_users = bench
pool_mode = $pool_mode
default_pool_size = $pool_size
max_client_conn = $pool_clients
$prepared
server_login_retry = 1
log_connections = 0
log_disconnections = 0
log_stats = 0
END
}

# serve_behind_pooler PORT: both, in the process group of whoever calls it; when one has ended, so does the other.
serve_behind_pooler() {
    local status=0 pid postgres_pid pooler_pid
    set +m
    make_pooler_configuration "$1"
    trap : INT QUIT TERM # they end the `wait -n`
    "${command[@]}" -D "$pgdata" -p "$direct_port" "${settings[@]}" &
    postgres_pid=$!
    # A client that it cannot pass on would have to wait for its next try.
    while [ -z "$(listeners "$direct_port")" ] && kill -0 "$postgres_pid" 2>/dev/null; do sleep 0.1; done
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    "${pooler[@]}" "$data_dir/pgbouncer.ini" &
    pooler_pid=$!
    wait -n || status=$?
    # It holds nothing that is worth a clean end, and its own idea of one differs by version.
    kill -KILL "$pooler_pid" 2>/dev/null || true
    kill -INT "$postgres_pid" 2>/dev/null || true
    # Without their parent they could be zombies for long after their end, and count as alive.
    for pid in "$pooler_pid" "$postgres_pid"; do
        while kill -0 "$pid" 2>/dev/null; do wait "$pid" || true; done
    done
    return "$status"
}
