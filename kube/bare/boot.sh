#!/bin/sh
# Boots the bare machine and says when its node is Ready:
# boot.sh DIR [MODE] [TIMEOUT]. Modes: server (ends when Ready and prints
# "ready_seconds N"), conformance (ends when the machine powers off), shell
# (stays; a shell is on 127.0.0.1:$BARE_PORT).
set -eu
dir=$1
mode=${2:-server}
limit=${3:-420}
port=${BARE_PORT:-12323}
log=$dir/console-$mode.log
accel=${BARE_ACCEL:-tcg,thread=multi}
: >"$log"
now() { date +%s.%N; }
start=$(now)
qemu-system-x86_64 -machine q35 -accel "$accel" -cpu max -smp 2 -m 3072 -display none -no-reboot \
	-kernel "$dir/vmlinuz" -append "root=/dev/nvme0n1 rw init=/usr/sbin/init console=ttyS0 quiet panic=10 bare.mode=$mode" \
	-drive "if=none,id=disk,file=$dir/disk.img,format=raw,snapshot=on" -device nvme,drive=disk,serial=bare \
	-netdev "user,id=net,hostfwd=tcp:127.0.0.1:$port-:2323" -device virtio-net-pci,netdev=net \
	-device virtio-rng-pci -serial "file:$log" -monitor none &
qemu=$!
trap 'kill $qemu 2>/dev/null || true; wait $qemu 2>/dev/null || true' EXIT INT TERM
while kill -0 $qemu 2>/dev/null; do
	seconds=$(echo "$(now) $start" | awk '{printf "%.1f", $1 - $2}')
	if [ "$mode" = server ] && grep -q 'is Ready' "$log"; then
		echo "ready_seconds $seconds"
		exit 0
	fi
	if grep -q "bare: $mode passed" "$log"; then
		echo "$mode passed after $seconds s"
		exit 0
	fi
	if grep -qE "bare: ($mode failed|k3s ended)|Kernel panic" "$log" || [ "${seconds%.*}" -ge "$limit" ]; then
		tail -n 40 "$log" >&2
		echo "boot.sh: $mode did not get there in $seconds s; the console is in $log" >&2
		exit 1
	fi
	sleep 0.2
done
tail -n 40 "$log" >&2
echo "boot.sh: the machine ended; the console is in $log" >&2
exit 1
