#!/bin/sh
# PID 1 of the test machine: starts containerd, then runs the commands that the harness writes to the serial line.
# The root is read-only and shared by all machines; everything written goes to a tmpfs and is lost with the machine.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
say() { read -r up _ </proc/uptime; echo "L1 $up $*"; }

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm
for d in /tmp /job /root /usr/local /etc/casemate /var/lib/containerd /var/lib/casemate /var/lib/cni; do mount -t tmpfs -o mode=755 tmpfs $d; done
chmod 1777 /tmp; mkdir -p /job/out /usr/local/bin /usr/local/share
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
ln -sfn /proc/self/fd /dev/fd
for m in kvm_amd kvm_intel tun overlay loop; do modprobe -q $m; done
hostname casemate-l1; ip link set lo up
say modules

port() { for p in /sys/class/virtio-ports/*; do [ "$(cat $p/name 2>/dev/null)" = "$1" ] && echo /dev/${p##*/}; done; }
live=$(port casemate.live); results=$(port casemate.results)
ln -s "$(port casemate.vmm)" /dev/casemate-vmm-console
exec 4>"$live"

mkdir -p /run/containerd
containerd >/run/containerd.log 2>&1 &
n=0; until ctr version >/dev/null 2>&1; do sleep 0.1; n=$((n+1)); [ $n -lt 600 ] || { say "containerd does not answer"; cat /run/containerd.log; break; }; done
say containerd

# Each line is a command and gets one answer. Echo is off, because a program reads the console.
stty -F /dev/ttyS0 -echo; exec 3</dev/ttyS0
echo "L1-READY"
while read -r verb rest <&3; do
    case $verb in
    # A restored machine's clock shows the time at which it was saved.
    clock) date -s "@$rest" >/dev/null ;;
    unpack) tar xf /dev/vdb -C / ;;
    run) sh -c "$rest" </dev/null >&4 2>&4 ;;
    # A terminal with job control, for people and scripts. script(1) provides a pty: ctr reads nothing from an hvc terminal,
    # which also loses its size when no process has it open.
    shell) set -- $rest; export TERM="$1" ROWS="$2" COLS="$3"
        setsid -cw sh -c 'stty rows $ROWS cols $COLS; exec script -qec "bash -l" /dev/null' </dev/hvc0 >/dev/hvc0 2>&1 ;;
    results) tar cf - -C /job/out . >"$results" ;;
    off) sync; echo o >/proc/sysrq-trigger; sleep 30 ;;
    *) false ;;
    esac
    echo "L1-DONE $?"
done
say "the serial line ended"; echo o >/proc/sysrq-trigger; sleep 30
