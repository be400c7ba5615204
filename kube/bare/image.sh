#!/bin/sh
# Makes the bare machine's disk: image.sh K3S DIR writes DIR/disk.img and
# DIR/vmlinuz. No root, no loop devices.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
k3s=$1
dir=$2
[ -d "$dir/tree" ] || "$here/fetch.sh" "$dir"
root=$dir/root
rm -rf "$root"
cp -a --reflink=auto "$dir/tree" "$root"
cp "$root"/boot/vmlinuz-* "$dir/vmlinuz"
rm -rf "$root/boot"
for d in proc sys dev run tmp root etc/rancher/k3s var/lib/rancher/k3s var/lib/kubelet var/log usr/local/bin; do mkdir -p "$root/$d"; done
for t in $("$root/usr/bin/busybox" --list); do
	[ -e "$root/usr/bin/$t" ] || [ -e "$root/usr/sbin/$t" ] || ln -s busybox "$root/usr/bin/$t"
done
install -m 755 "$here/init" "$root/usr/sbin/init"
install -m 755 "$k3s" "$root/usr/bin/k3s"
[ ! -d "$(dirname "$k3s")/data" ] || {
	mkdir -p "$root/usr/lib/k3s"
	cp -a "$(dirname "$k3s")/data" "$root/usr/lib/k3s/data"
}
install -m 644 "$here/modules" "$root/etc/bare-modules"
[ ! -f "$here/../conformance/run.sh" ] || install -m 755 "$here/../conformance/run.sh" "$root/etc/bare-conformance"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo nameserver 10.0.2.3 >"$root/etc/resolv.conf"
echo "127.0.0.1 localhost bare" >"$root/etc/hosts"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
cat >"$root/etc/rancher/k3s/config.yaml" <<EOF
node-name: bare
cluster-init: true
disable: [coredns, servicelb, traefik, local-storage, metrics-server]
EOF
rm -f "$dir/disk.img"
mke2fs=$(command -v mke2fs || echo /usr/sbin/mke2fs)
"$mke2fs" -q -t ext4 -E lazy_itable_init=1,root_owner=0:0 -d "$root" "$dir/disk.img" 6G
rm -rf "$root"
echo "$dir/disk.img"
