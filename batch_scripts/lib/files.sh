# shellcheck shell=bash
# The job's directory and its secret.

# use_job_dir: sets job_dir and data_dir and makes both, readable by their owner only.
use_job_dir() {
    if [ -n "${AIFBENCH_JOB_DIR:-}" ]; then
        job_dir=$AIFBENCH_JOB_DIR
    elif [ -n "${SCRATCH:-}" ]; then
        job_dir=$SCRATCH/aifbench/$SLURM_JOB_ID
    else
        job_dir=$(mktemp -d "${TMPDIR:-/tmp}/aifbench.XXXXXX")
        remove_at_end+=("$job_dir")
        note "data goes to $job_dir and is removed at the end; set AIFBENCH_JOB_DIR to keep it"
    fi
    data_dir=${AIFBENCH_DATA_DIR:-$job_dir/data}
    (umask 077 && mkdir -p "$job_dir" "$data_dir") || die "cannot make $job_dir and $data_dir"
    [ -w "$data_dir" ] || die "cannot write to $data_dir"
    job_dir=$(cd "$job_dir" && pwd)
    data_dir=$(cd "$data_dir" && pwd)
}

# use_secret: sets secret_file, making it when absent. Only its path is ever printed.
use_secret() {
    secret_file=${AIFBENCH_SECRET_FILE:-$job_dir/secret}
    if [ ! -e "$secret_file" ]; then
        (umask 077 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$secret_file") ||
            die "cannot write the secret file $secret_file"
    fi
    local mode
    mode=$(stat -L -c %a "$secret_file")
    case $mode in
    600 | 400) ;;
    *) die "secret file $secret_file has mode $mode; make it private: chmod 600 $secret_file" ;;
    esac
    [ -O "$secret_file" ] || die "secret file $secret_file belongs to somebody else"
    [ -s "$secret_file" ] || die "secret file $secret_file is empty; remove it to have one made"
    note "the secret is in $secret_file"
}
