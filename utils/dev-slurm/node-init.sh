#!/bin/bash
# The first process (pid 1) of one virtual node: killing it is the power cut.
# Usage: node-init.sh NAME IP LOGIN_IP ROOT TMP   (TMP: "private" or "shared"), inside new namespaces.
# Protocol: prints its pid as the machine sees it; continues when a line arrives (network plugged in).
set -eu
name=$1 ip=$2 login_ip=$3 root=$4 tmp=$5

read -r pid _ </proc/self/stat  # /proc is still the machine's here
echo "$pid"
read -r _
exec </dev/null >>"$root/log/$name.log" 2>&1

hostname "$name"
mount -t proc proc /proc
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run/munge
mount --bind "$root/etc/resolv.conf" /etc/resolv.conf  # no DNS, and none of its timeouts
if [ "$tmp" = private ]; then mount -t tmpfs -o mode=1777 tmpfs /tmp; fi

ip link set lo up
ip address add "$ip/24" dev ib0
ip link set ib0 up
ip route add default via "$login_ip"

munged --force --foreground --key-file "$root/etc/munge.key" --pid-file /run/munge/munged.pid \
    --log-file "$root/log/munged-$name.log" --seed-file "$root/spool/munge-$name.seed" &
until [ -S /run/munge/munge.socket.2 ]; do sleep 0.02; done
mkdir -p "$root/spool/$name"
slurmd -D -N "$name" -f "$root/etc/slurm.conf" >/dev/null 2>&1 &

# bash as pid 1 also reaps the orphans of jobs.
sleep infinity &
wait $!
