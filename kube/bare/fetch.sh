#!/bin/sh
# Fetches the packages named in ./packages and their dependencies from Debian
# trixie and unpacks them: fetch.sh DIR leaves DIR/tree. Needs no root; the
# archive is the one in the host's own apt configuration, or HOLDFAST_MIRROR.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
apt=$dir/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/none.d"

mirror=${HOLDFAST_MIRROR:-}
if [ -z "$mirror" ]; then
	mirror=$(sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*debian\)\/\{0,1\}[[:space:]]*$/\1/p; s/^deb[[:space:]]\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*debian\)\/\{0,1\}[[:space:]].*/\2/p' \
		/etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1)
fi
if [ -z "$mirror" ]; then
	echo "fetch.sh: no Debian archive in this machine's apt configuration; name one in HOLDFAST_MIRROR" >&2
	exit 1
fi
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"

# An empty status file makes apt resolve the whole closure, not what this
# machine happens to lack.
: >"$apt/status"
cat >"$apt/apt.conf" <<EOF
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/none.d";
Dir::Etc::preferencesparts "$apt/none.d";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
EOF
export APT_CONFIG="$apt/apt.conf"
apt-get -qq update
# shellcheck disable=SC2046
apt-get -qq --yes --download-only -o Debug::NoLocking=1 install $(grep -v '^#' "$here/packages") >"$apt/log" 2>&1 ||
	{ cat "$apt/log" >&2; exit 1; }

rm -rf "$dir/tree.new"
mkdir -p "$dir/tree.new/usr/bin" "$dir/tree.new/usr/sbin" "$dir/tree.new/usr/lib" "$dir/tree.new/usr/lib64"
for link in bin sbin lib lib64; do ln -s "usr/$link" "$dir/tree.new/$link"; done
for deb in "$apt"/cache/archives/*.deb; do
	case $deb in */perl* | */debconf* | */dpkg_* | */initramfs-tools* | */linux-base* | */openssl* | */klibc* | */libklibc* | */dracut* | */coreutils* | */cpio* | */systemd_* | */libsystemd* | */udev_* | */logsave* | */libssl* | */libpam*) continue ;; esac
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$dir/tree.new" --keep-directory-symlink --no-same-owner \
		--exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/i18n/*'
done
# What the packages' own scripts would have done: iptables' alternatives and the
# modules' index. The unpacked kmod runs here through its own loader.
tree=$dir/tree.new
for t in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
	ln -s xtables-nft-multi "$tree/usr/sbin/$t"
done
mv "$tree"/usr/lib/modules/*/kernel "$tree/kernel.all"
kernel=$(ls "$tree/usr/lib/modules")
for d in net fs/overlayfs fs/netfs crypto lib arch drivers/net/virtio_net.ko.xz drivers/net/veth.ko.xz drivers/net/tun.ko.xz \
	drivers/net/vxlan drivers/net/net_failover.ko.xz drivers/net/dummy.ko.xz drivers/block/virtio_blk.ko.xz \
	drivers/char/hw_random drivers/watchdog; do
	[ -e "$tree/kernel.all/$d" ] || continue
	mkdir -p "$tree/usr/lib/modules/$kernel/kernel/$(dirname "$d")"
	mv "$tree/kernel.all/$d" "$tree/usr/lib/modules/$kernel/kernel/$d"
done
rm -rf "$tree/kernel.all" "$tree"/boot/System.map*
"$tree/usr/lib64/ld-linux-x86-64.so.2" --argv0 depmod --library-path "$tree/usr/lib/x86_64-linux-gnu" \
	"$tree/usr/bin/kmod" -b "$tree" "$kernel"
rm -rf "$dir/tree"
mv "$dir/tree.new" "$dir/tree"
