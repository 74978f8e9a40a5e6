#!/bin/bash
#SBATCH --job-name=aifbench-chroma
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:00:00
# Chroma, a vector database: from chroma.sif or, where there is none, from the installed package.
# By hand: `bash batch_scripts/start_chroma.sh`, or `sbatch` it from the project's directory.
# The variables it understands are listed in lib/service.sh; and AIFBENCH_LOG_LEVEL: error, warn, info or debug.
set -eu
# sbatch runs a copy of this file, so its own place tells nothing there.
for lib in "${AIFBENCH_HOME:-}/batch_scripts/lib" "$(dirname "$0")/lib" "${SLURM_SUBMIT_DIR:-.}/batch_scripts/lib"; do
    [ ! -f "$lib/service.sh" ] || break
done
# shellcheck source=batch_scripts/lib/service.sh
. "$lib/service.sh"

use_job_dir
use_addresses
use_runtime chroma chroma chromadb

pass_to_service ANONYMIZED_TELEMETRY False
# At its own default (info) Chroma writes some 3 kB to its log for every request.
pass_to_service RUST_LOG "${AIFBENCH_LOG_LEVEL:-warn}"
pass_to_service NO_COLOR 1
auth=none
if [ "${version%%.*}" = 0 ]; then
    # Servers before 1.0 can ask for a token; later ones cannot, and are open to whoever reaches them.
    use_secret
    auth=token
    pass_to_service CHROMA_SERVER_AUTHN_PROVIDER chromadb.auth.token_authn.TokenAuthenticationServerProvider
    pass_to_service CHROMA_SERVER_AUTHN_CREDENTIALS "$(cat "$secret_file")"
fi

# shellcheck disable=SC2317 # `serve` calls it
service_command() {
    exec "${command[@]}" run --path "$data_dir" --host "$bind" --port "$1"
}

serve chroma
