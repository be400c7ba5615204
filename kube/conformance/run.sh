#!/bin/sh
# Checks a k3s binary against the contract that Holdfast relies on, on a machine
# that has nothing else to do: run.sh [K3S]. Prints one line per check and ends
# with code 0 when all hold. POD_IMAGE names an image that the node has already
# and that answers HTTP on 8080; without it the stand-in's own is used.
set -u
k3s=${1:-/usr/bin/k3s}
image=${POD_IMAGE:-holdfast.test/pod:1}
limit=${LIMIT:-180}
data=/var/lib/rancher/k3s
name=conform
work=$(mktemp -d)
failures=0
k() { "$k3s" kubectl "$@"; }
up() { cut -d' ' -f1 /proc/uptime; }
ok() { echo "ok      $1 (at $(up) s)"; }
bad() {
	echo "NOT OK  $1"
	shift
	[ $# = 0 ] || printf '%s\n' "$@" | sed 's/^/        /' | cut -c1-400
	failures=$((failures + 1))
}
# check NAME COMMAND...: the command's success is the check.
check() {
	what=$1
	shift
	if out=$("$@" 2>&1); then ok "$what"; else bad "$what" "$out"; fi
}
# until COMMAND...: repeats it until it succeeds or the limit is over.
until_ok() {
	end=$(($(cut -d. -f1 /proc/uptime) + limit))
	until "$@" >/dev/null 2>&1; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || return 1
		sleep 1
	done
}
# refused NAME WORD COMMAND...: it must fail and say WORD.
refused() {
	what=$1 word=$2
	shift 2
	if out=$(timeout 90 "$@" 2>&1); then
		bad "$what" "it was accepted"
	elif echo "$out" | grep -qi -- "$word"; then
		ok "$what"
	else
		bad "$what" "it does not say '$word':" "$out"
	fi
}

mkdir -p /etc/rancher/k3s
echo "node-nmae: x" >"$work/unknown.yaml"
out=$(timeout 20 "$k3s" server --config "$work/unknown.yaml" --data-dir "$work/unknown" 2>&1)
if echo "$out" | grep -q node-nmae; then ok "an unknown configuration key is named"; else bad "an unknown configuration key is named" "$out"; fi

cat >/etc/rancher/k3s/config.yaml <<EOF
node-name: $name
cluster-init: true
secrets-encryption: true
write-kubeconfig-mode: "0640"
agent-token: agents-only
node-label: [holdfast.test/site=here]
disable: [coredns, servicelb, traefik, local-storage, metrics-server]
EOF
start() {
	"$k3s" server >>"$work/server.log" 2>&1 &
	server=$!
}
node_ready() { k get node $name -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True; }
start
if until_ok node_ready; then
	ok "the node is Ready"
else
	bad "the node is Ready" "$(tail -n 20 "$work/server.log")"
	cat "$work/server.log"
	exit 1
fi

exe=$(readlink /proc/$server/exe)
case $exe in *"/data/"*"/bin/"*) ok "it runs from an unpacked tree: $exe" ;; *) bad "it runs from an unpacked tree" "$exe" ;; esac
[ -e "$(readlink -f $data/data/current)" ] && ok "data/current points at it" || bad "data/current points at it"
check "k3s.yaml has the mode asked for" sh -c "stat -c %a /etc/rancher/k3s/k3s.yaml | grep -qx 640"
check "kubelet.kubeconfig reads its own node" until_ok k --kubeconfig $data/agent/kubelet.kubeconfig get node $name
check "the node has its label" until_ok sh -c "$k3s kubectl get node $name -o 'jsonpath={.metadata.labels.holdfast\.test/site}' | grep -qx here"
check "the node password is on disk" test -s /etc/rancher/node/password
check "the cluster keeps its hash" until_ok k -n kube-system get secret $name.node-password.k3s

k get --raw /cacerts >"$work/ca.pem" 2>/dev/null
hash=$(sha256sum <"$work/ca.pem" | cut -d' ' -f1)
check "the token carries the hash of /cacerts" grep -q "^K10$hash::server:" $data/server/token
check "node-token is the same" cmp $data/server/token $data/server/node-token
echo "node-ip: 127.0.0.1" >"$work/agent.yaml"
agent="$k3s agent --config $work/agent.yaml --server https://127.0.0.1:6443 --data-dir $work/agent"
zeros=$(printf '%064d' 0)
refused "a token with another CA hash is refused" "hash" $agent --node-name other --token "K10$zeros::node:agents-only"
refused "a wrong agent token is refused" "authorized" $agent --node-name other --token "K10$hash::node:wrong"
cp /etc/rancher/node/password "$work/password"
echo wrong >/etc/rancher/node/password
refused "another node of the same name is refused" "password" $agent --node-name $name --token "K10$hash::node:agents-only"
cp "$work/password" /etc/rancher/node/password
made=$("$k3s" token create --ttl 5m 2>/dev/null | tail -n 1)
if echo "$made" | grep -qE "^K10$hash::[a-z0-9]{6}\.[a-z0-9]{16}$"; then ok "a bootstrap token has the K10 form"; else bad "a bootstrap token has the K10 form" "$made"; fi

cat >"$work/pod.yaml" <<EOF
apiVersion: v1
kind: Pod
metadata: {name: hello, labels: {app: hello}}
spec:
  containers:
  - {name: c, image: "$image", imagePullPolicy: Never, ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{port: 80, targetPort: 8080}]}
EOF
# The namespace's default account appears a moment after the node.
until_ok k apply -f "$work/pod.yaml" || bad "apply" "$(k apply -f "$work/pod.yaml" 2>&1)"
running() { k get pod hello -o 'jsonpath={.status.phase}' | grep -qx Running; }
if until_ok running; then ok "a pod is Running"; else bad "a pod is Running" "$(k describe pod hello | tail -n 8)"; fi
ip=$(k get pod hello -o 'jsonpath={.status.podIP}')
check "the pod answers" wget -q -T 10 -O - "http://$ip:8080/"
service=$(k get service hello -o 'jsonpath={.spec.clusterIP}')
check "its service answers" until_ok wget -q -T 5 -O - "http://$service/"
check "its log can be read" k logs hello
check "a snapshot of the datastore is saved" "$k3s" etcd-snapshot save --name conform
check "and listed" sh -c "$k3s etcd-snapshot ls 2>/dev/null | grep -q conform"

id() { k get pod hello -o 'jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}'; }
before=$(id)
cert=$(sha256sum $data/server/tls/serving-kube-apiserver.crt)
kill -TERM $server
wait $server
if wget -q -T 10 -O /dev/null "http://$ip:8080/"; then ok "the pod goes on while k3s is stopped"; else bad "the pod goes on while k3s is stopped"; fi
pgrep -x containerd >/dev/null && bad "containerd stopped with k3s" || ok "containerd stopped with k3s"
start
sleep 5
if until_ok node_ready; then ok "the node is let in again"; else bad "the node is let in again" "$(tail -n 20 "$work/server.log")"; fi
until_ok running
[ "$(id)" = "$before" ] && ok "the container was adopted, not restarted" || bad "the container was adopted, not restarted" "before: $before" "after:  $(id)"
[ "$(sha256sum $data/server/tls/serving-kube-apiserver.crt)" = "$cert" ] && ok "certificates with time left are kept" || bad "certificates with time left are kept"
kill -TERM $server
wait $server && ok "it ends with code 0 when told to stop" || bad "it ends with code 0 when told to stop"

echo "$failures checks failed"
[ $failures = 0 ]
