#!/bin/sh
# Builds the stand-in, or finds it in the cache; the last line on standard
# output is the path of the k3s binary. Everything else goes to standard error.
# The cache key covers every source that goes in, so that it is built once.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/kube
version=v1.35.4

hash=$(cd "$here" && find go.mod go.sum build.sh cmd internal -type f ! -name '*_test.go' | LC_ALL=C sort |
	xargs sha256sum | sha256sum | cut -c1-16)
out=$cache/$hash/k3s
whole() { [ -x "$out" ] && [ -d "$cache/$hash/data" ]; }
if whole; then
	echo "$out"
	exit 0
fi

# Go: the machine's own when it is new enough for go.mod (or can fetch the
# toolchain it wants), else Debian's golang-go.
if ! command -v go >/dev/null 2>&1; then
	echo "build.sh: Go is missing; installing Debian's golang-go" >&2
	sudo=""
	[ "$(id -u)" = 0 ] || sudo=sudo
	suite=$(. /etc/os-release && echo "$VERSION_CODENAME")-backports
	$sudo apt-get -qq update >&2
	$sudo apt-get -qq -y install -t "$suite" golang-go >&2 || $sudo apt-get -qq -y install golang-go >&2 || {
		echo "build.sh: could not install it; run: apt-get install golang-go" >&2
		exit 1
	}
fi
# One that is too old for go.mod fetches the right toolchain through the module proxy.
export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}"
if ! (cd "$here" && go list -m) >/dev/null 2>&1; then
	(cd "$here" && go list -m) >&2 || {
		echo "build.sh: $(command -v go) is older than go.mod asks for and could not fetch a newer toolchain; install Go 1.25 or newer" >&2
		exit 1
	}
fi

# Made under another name and moved as a whole: an interrupted build must not
# pass for a finished one.
tmp=$(mktemp -d)
new=$cache/.$hash.$$
trap 'rm -rf "$tmp" "$new"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
base=k8s.io/component-base/version
flags="-s -w -X $base.gitVersion=$version+holdfast -X $base.gitMajor=1 -X $base.gitMinor=35 -X $base.gitTreeState=clean"
export CGO_ENABLED=0 GOARCH=amd64 GOOS=linux
echo "build.sh: building the k3s stand-in ($version); the first build takes about ten minutes" >&2
cd "$here"
start=$(date +%s)
nice -n 5 go build -p 2 -trimpath -buildvcs=false -ldflags "$flags" -o "$tmp/inner" ./cmd/k3s >&2
go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$tmp/pod" ./cmd/pod >&2
go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$tmp/launcher" ./cmd/launcher >&2
go build -trimpath -buildvcs=false -o "$tmp/pack" ./cmd/pack >&2
mkdir -p "$new"
"$tmp/pack" -launcher "$tmp/launcher" -out "$new/k3s" "bin/k3s=$tmp/inner" "bin/pod=$tmp/pod" "bin/kubectl=->k3s" >&2
# The tree as the launcher would unpack it, for image builders that put it into
# the root: DIR/data goes to /usr/lib/k3s/data there.
"$new/k3s" --version --data-dir="$new" >&2
rm -f "$new/data/current"
# Another build may have come first: what is whole is in use and stays.
if ! whole; then
	rm -rf "${cache:?}/$hash"
	mv -T "$new" "$cache/$hash"
fi
echo "build.sh: built in $(($(date +%s) - start)) s, $(($(stat -c %s "$out") / 1000000)) MB" >&2
echo "$out"
