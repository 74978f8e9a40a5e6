#!/bin/bash
# rank.sh LABEL COMMAND...: this node's part of a service that spans several; started by on_every_node.
#
# `{rank}`, `{address}` and `{head}` in the words of COMMAND become this node's number, its address and the first
# node's. Words after `--first--` are for the first node only, those after `--others--` for the others.
#   AIFBENCH_RANKS          how many nodes there are
#   AIFBENCH_RANK           this one's number   (default: SLURM_PROCID)
#   AIFBENCH_HEAD_ADDRESS   the address of the first
#   AIFBENCH_HEAD_NODE      the first's host name, under Slurm
#   AIFBENCH_RANK_TEMP      a directory on this node to be removed at the end
set -eu
lib=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=batch_scripts/lib/service.sh
. "$lib/service.sh"
END_GRACE_S=3 # less than that of the script which ends this one

[ -z "${AIFBENCH_RANK_TEMP:-}" ] || remove_at_end+=("$AIFBENCH_RANK_TEMP")

label=$1
shift
rank=${AIFBENCH_RANK:-${SLURM_PROCID:?}}
where="$label rank $rank of $AIFBENCH_RANKS on $(uname -n)"
if [ "$rank" = 0 ]; then
    [ "${AIFBENCH_HEAD_NODE:-$(uname -n)}" = "$(uname -n)" ] ||
        die "$where: the first process runs here, and the job's script on $AIFBENCH_HEAD_NODE"
    address=$AIFBENCH_HEAD_ADDRESS
else
    use_addresses
    if [ "${AIFBENCH_EXPORTERS:-}" = 1 ]; then
        use_job_dir
        start_exporters
        tell_exporters # the first node's are announced
    fi
fi

# words_for_rank WORD...: sets `words`.
words_for_rank() {
    local word wanted=yes
    words=()
    for word in "$@"; do
        case $word in
        --first--) if [ "$rank" = 0 ]; then wanted=yes; else wanted=no; fi ;;
        --others--) if [ "$rank" = 0 ]; then wanted=no; else wanted=yes; fi ;;
        *)
            word=${word//'{rank}'/$rank}
            word=${word//'{address}'/$address}
            word=${word//'{head}'/$AIFBENCH_HEAD_ADDRESS}
            [ "$wanted" = no ] || words+=("$word")
            ;;
        esac
    done
}

# On the first node, and where all are this one machine, the job's script has started one.
if [ "$rank" != 0 ] && [ -n "${SLURM_PROCID:-}" ] && [ "${AIFBENCH_SCHEDULER:-}" != local ]; then
    job_dir=$AIFBENCH_JOB_DIR
    sample_resources
fi
words_for_rank "$@"
interface=$(ip -4 -o address show 2>/dev/null | awk -v ip="$address" 'index($4, ip "/") == 1 { print $2; exit }')
pass_to_service VLLM_HOST_IP "$address"
if [ -n "$interface" ]; then
    pass_to_service GLOO_SOCKET_IFNAME "${GLOO_SOCKET_IFNAME:-$interface}"
    pass_to_service NCCL_SOCKET_IFNAME "${NCCL_SOCKET_IFNAME:-$interface}"
fi
note "$where starts"
start "${words[@]}"
status=0
wait "$started_pid" || status=$?
# A part of a service has no good reason to end by itself.
note "$where ended by itself with status $status"
[ "$status" -ne 0 ] || status=1
exit "$status"
