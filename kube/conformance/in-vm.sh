#!/bin/sh
# Runs the checks in the bare machine: in-vm.sh [K3S]; by default against the
# stand-in, which is built first.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
k3s=${1:-$("$here/../build.sh")}
dir=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/kube/bare
mkdir -p "$dir"
"$here/../bare/image.sh" "$k3s" "$dir" >/dev/null
"$here/../bare/boot.sh" "$dir" conformance "${LIMIT:-900}" || code=$?
grep -a -E '^(ok|NOT OK|        |[0-9]+ checks)' "$dir/console-conformance.log" || true
exit "${code:-0}"
