#!/bin/busybox sh
# The first process of the emulated machine: mounts what a system mounts, with control groups of
# version 2 only, runs /command, and tells how that ended.
#
# The first serial port is what the user sees, the second is for `cargo xtask vm`.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /

busybox mount -t devtmpfs -o nosuid,noexec devtmpfs /dev
exec </dev/null >/dev/ttyS0 2>&1

busybox mount -t proc -o nosuid,noexec,nodev proc /proc
busybox mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
for place in /dev/shm /run /tmp; do
    busybox mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$place"
done
busybox chmod 755 /run

busybox mount -t cgroup2 -o nosuid,noexec,nodev cgroup2 /sys/fs/cgroup
for controller in $(busybox cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done

busybox insmod /overlay.ko
busybox insmod /fuse.ko
busybox ip link set lo up
# As systemd gives to services.
ulimit -Hn 524288
export SHIMWRIGHT_SHIM_DIR=/usr/local/bin

echo booted >/dev/ttyS1
busybox sh /command
status=$?

# Closing a port waits until all has been sent.
exec >/dev/null 2>&1
echo "ended with $status" >/dev/ttyS1
echo 0 >/proc/sys/kernel/printk
busybox poweroff -f
