#!/bin/sh
# Seconds from power-on to node Ready of a machine that has nothing but
# Kubernetes: measure.sh [K3S] prints "ready_seconds N" as its last line.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
k3s=${1:-$("$here/../build.sh")}
dir=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/kube/bare
mkdir -p "$dir"
"$here/image.sh" "$k3s" "$dir" >/dev/null
exec "$here/boot.sh" "$dir" server "${LIMIT:-420}"
