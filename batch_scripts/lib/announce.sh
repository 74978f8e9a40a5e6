# shellcheck shell=bash
# announce SERVICE PORT [NAME=PORT...]: tells, in the job's log, where SERVICE listens.
#
# Uses `address`, `version`, `auth` and, where there are, `exporter_ports`. One write, from a fresh line: the
# service writes to the same log, and a block with a foreign line in it is not believed
# (src/aifbench/cluster/announce.py).
announce() {
    local service=$1 port=$2 more ports=''
    shift 2
    for more in "$@" ${exporter_ports[@]+"${exporter_ports[@]}"}; do ports+="PORT ${more%%=*}: ${more#*=}"$'\n'; done
    printf '%s' "
SLURM_JOB_ID: $SLURM_JOB_ID
SLURM_RESTART_COUNT: $SLURM_RESTART_COUNT
NODE: $(uname -n)
IP ADDRESS: $address
PORT: $port
${ports}${version:+SERVICE VERSION: $version
}AUTH: $auth
ANNOUNCED: $service
"
}
