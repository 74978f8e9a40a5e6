#!/bin/bash
#SBATCH --job-name=aifbench-s3
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:00:00
# S3 object storage over a directory: versitygw from its image or, where there is none, `rclone serve s3`.
# By hand: `bash batch_scripts/start_s3.sh`, or `sbatch` it from the project's directory. The access key is
# `aifbench`, the secret key is in the secret file.
# The variables it understands are listed in lib/service.sh; and AIFBENCH_S3_SOFTWARE: auto, versitygw or rclone.
set -eu
# sbatch runs a copy of this file, so its own place tells nothing there.
for lib in "${AIFBENCH_HOME:-}/batch_scripts/lib" "$(dirname "$0")/lib" "${SLURM_SUBMIT_DIR:-.}/batch_scripts/lib"; do
    [ ! -f "$lib/service.sh" ] || break
done
# shellcheck source=batch_scripts/lib/service.sh
. "$lib/service.sh"

use_job_dir
use_addresses
use_secret
auth=token
access_key=aifbench
install_hint='source env.sh installs rclone'

software=${AIFBENCH_S3_SOFTWARE:-auto}
if [ "$software" = auto ]; then
    software=rclone
    if [ -e "${AIFBENCH_IMAGES:-$AIFBENCH_HOME/utils/sif-images}/versitygw.sif" ] && find_container_tool; then
        software=versitygw
    fi
fi
case $software in
versitygw | rclone) use_runtime "$software" "$software" ;;
*) die "AIFBENCH_S3_SOFTWARE is '$software'; valid: auto, versitygw, rclone" ;;
esac

# The objects alone: a job's data directory holds other files too.
store_dir=$data_dir/buckets
mkdir -p "$store_dir"

case $software in
versitygw)
    pass_to_service ROOT_ACCESS_KEY "$access_key"
    pass_to_service ROOT_SECRET_KEY "$(cat "$secret_file")"
    ;;
rclone)
    # A list of pairs in CSV, hence the quotes. On the command line every user of the node could read it.
    pass_to_service RCLONE_AUTH_KEY "\"$access_key,$(cat "$secret_file")\""
    pass_to_service RCLONE_CONFIG /dev/null
    version=$("${command[@]}" version 2>/dev/null | sed -n '1s/^rclone v//p')
    ;;
esac
version="$software${version:+ $version}"

# shellcheck disable=SC2317 # `serve` calls it
service_command() {
    case $software in
    # Without --keep-alive it closes every connection after one answer.
    versitygw) exec "${command[@]}" --port "$bind:$1" --quiet --keep-alive posix "$store_dir" ;;
    # Without a cache objects go straight to the file system, and what is measured is that.
    rclone) exec "${command[@]}" serve s3 --addr "$bind:$1" --vfs-cache-mode off "$store_dir" ;;
    esac
}

serve s3
