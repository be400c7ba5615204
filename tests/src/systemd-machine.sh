#!/usr/bin/env bash
# A Linux machine for a test: systemd as PID 1 of namespaces of its own, over what this machine has
# on its disk. What it writes is kept in memory, also when it reboots, and is gone with it.
# Usage: systemd-machine.sh run DIR CGROUP PLACE, the last a network namespace. $PID_FILE then has its
# PID 1; $HOLDFAST is the command it gets, $RESOLVED a Debian package.
set -euo pipefail
verb=$1 dir=$2
case $verb in
run)
  echo 0 >"$3/cgroup.procs"
  exec ip netns exec "$4" unshare --mount --propagation private --pid --fork --kill-child=KILL "$0" hold "$dir"
  ;;
hold)
  mount -t tmpfs tmpfs "$dir"
  mkdir "$dir"/{upper,work,root}
  for folder in etc/systemd/system usr/local/bin root; do mkdir -p "$dir/upper/$folder"; done
  # Nothing of what this machine itself runs, and no login.
  ln -s /dev/null "$dir/upper/etc/systemd/system/console-getty.service"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
  rm -f "$dir"/root/etc/systemd/system/*.wants/* "$dir"/root/etc/fstab
  cp "$HOLDFAST" "$dir/root/usr/local/bin/holdfast"
  if [ -n "${RESOLVED:-}" ]; then
    # /lib is a link, and has to stay one.
    dpkg-deb --fsys-tarfile "$RESOLVED" | tar -x -C "$dir/root" --keep-directory-symlink
  fi
  mkdir "$dir/root/.old"
  while true; do
    unshare --mount --propagation private --pid --fork --uts --ipc --cgroup "$0" boot "$dir" || true
  done
  ;;
boot)
  root=$dir/root
  # As the outer /proc shows it.
  read -r pid _ </proc/self/stat
  echo "$pid" >"$PID_FILE"
  mount -t proc proc "$root/proc"
  # Kernel settings that are not of a namespace stay as they are.
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
  mount -o remount,bind,ro "$root/proc/sys"
  [ ! -e "$root/proc/sysrq-trigger" ] || mount --bind /dev/null "$root/proc/sysrq-trigger"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  for folder in run tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  mkdir "$root"/dev/{net,pts,shm}
  for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  touch "$root/dev/net/tun"
  mount --bind /dev/net/tun "$root/dev/net/tun"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  cd "$root"
  pivot_root . .old
  umount -l /.old
  exec env -i container=holdfast-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=console --unit=multi-user.target
  ;;
esac
