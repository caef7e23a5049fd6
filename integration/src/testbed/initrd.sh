#!/bin/busybox sh
# First program of the test machine: mounts its disk and executes the init in this archive.
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in /mod/*; do $b insmod "$m"; done
case "$($b cat /proc/cmdline)" in *casemate.probe*)
    # Reports whether this host's KVM runs Linux with nested virtualisation.
    $b grep -qwE 'svm|vmx' /proc/cpuinfo && echo CASEMATE-PROBE-OK
    echo o >/proc/sysrq-trigger; $b sleep 30;;
esac
n=0; until [ -b /dev/vda ]; do $b usleep 20000; n=$((n+1)); [ $n -lt 500 ] || { echo "no disk"; exit 1; }; done
$b mount -t ext4 -o ro /dev/vda /mnt
for d in proc sys dev; do $b mount --move /$d /mnt/$d; done
$b mount -t tmpfs run /mnt/run
$b cp /l1-init /mnt/run/l1-init
exec $b switch_root /mnt /run/l1-init
