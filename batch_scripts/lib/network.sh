# shellcheck shell=bash
# Addresses and ports, from /proc and `ip`: nothing needs to be installed for it.

# node_ip: prints the address other nodes reach this one at.
node_ip() {
    local ip=''
    if [ -n "${AIFBENCH_INTERFACE:-}" ]; then
        ip=$(interface_ip "$AIFBENCH_INTERFACE")
        [ -n "$ip" ] || die "no IPv4 address on AIFBENCH_INTERFACE=$AIFBENCH_INTERFACE; see: ip -4 address"
    fi
    [ -n "$ip" ] || ip=$(interface_ip ib0)
    # Asks the routing table only; nothing is sent to this documentation address (RFC 5737).
    [ -n "$ip" ] || ip=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
    [ -n "$ip" ] || ip=$(hostname -I 2>/dev/null | cut -d ' ' -f 1)
    [ -n "$ip" ] || die "this node's address cannot be found; set AIFBENCH_INTERFACE or AIFBENCH_BIND"
    printf '%s\n' "$ip"
}

interface_ip() {
    ip -4 -o address show dev "$1" 2>/dev/null | sed -n '1s/.* inet \([0-9.]*\).*/\1/p'
}

# use_addresses: sets `bind`, to listen on, and `address`, to be reached at.
use_addresses() {
    bind=${AIFBENCH_BIND:-$(node_ip)}
    address=$bind
    if [ "$bind" = 0.0.0.0 ]; then address=$(node_ip); fi
}

# listeners PORT: the socket inodes that listen on PORT, whatever their address.
listeners() {
    local hex
    printf -v hex '%04X' "$1"
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }'
}

is_taken() { [ -n "$(listeners "$1")" ]; }

# choose_port: prints AIFBENCH_PORT, or a free port below the range the kernel gives to clients.
choose_port() {
    local port=${AIFBENCH_PORT:-} tries=50
    if [ -n "$port" ]; then
        is_taken "$port" && die "port $port is taken; choose another AIFBENCH_PORT, or none for a free one"
        printf '%s\n' "$port"
        return
    fi
    while [ $((tries -= 1)) -ge 0 ]; do
        port=$((20000 + RANDOM % 12000))
        is_taken "$port" || break
    done
    [ "$tries" -ge 0 ] || die "no free port found between 20000 and 32000"
    printf '%s\n' "$port"
}

# holds_port GROUP PORT: whether a process of that group listens on PORT.
holds_port() {
    local inode pid
    for inode in $(listeners "$2"); do
        for pid in $(group_members "$1"); do
            # shellcheck disable=SC2010 # the link's target is wanted, not the name
            ls -l "/proc/$pid/fd" 2>/dev/null | grep -q "socket:\[$inode\]" && return 0
        done
    done
    return 1
}

group_members() {
    cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^\([0-9]*\) (.*) /\1 /' | awk -v group="$1" '$4 == group { print $1 }'
}
