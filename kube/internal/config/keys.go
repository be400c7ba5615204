// Package config reads k3s's configuration: /etc/rancher/k3s/config.yaml and
// its drop-ins, environment variables and flags, all with the same keys.
//
// The keys are those that k3s documents for `k3s server` and `k3s agent`
// (docs.k3s.io, "k3s server", "k3s agent"). Others are refused.
package config

import "strings"

type kind int

const (
	text kind = iota
	list
	boolean
)

// support says what the stand-in does with a documented key.
type support int

const (
	// works: the key does what k3s documents.
	works support = iota
	// ignored: accepted with a warning, because nothing a test looks at
	// depends on it.
	ignored
	// refused: accepting it would pretend something that is not there.
	refused
)

type key struct {
	kind kind
	// agent says that `k3s agent` knows the key too.
	agent   bool
	support support
	// env is the variable that k3s documents for the key, if any.
	env string
}

var keys = map[string]key{}

func add(k kind, agent bool, s support, names string) {
	for _, n := range strings.Fields(names) {
		name, env, _ := strings.Cut(n, "=")
		keys[name] = key{kind: k, agent: agent, support: s, env: env}
	}
}

func init() {
	// Node and both commands.
	add(text, true, works, `token=K3S_TOKEN token-file=K3S_TOKEN_FILE server=K3S_URL data-dir=K3S_DATA_DIR
		node-name=K3S_NODE_NAME resolv-conf=K3S_RESOLV_CONF flannel-iface pause-image snapshotter bind-address`)
	add(list, true, works, `node-ip node-label node-taint kubelet-arg kube-proxy-arg`)
	add(boolean, true, works, `prefer-bundled-bin debug protect-kernel-defaults`)
	add(boolean, true, ignored, `alsologtostderr disable-default-registry-endpoint enable-pprof nonroot-devices with-node-id`)
	add(list, true, ignored, `airgap-extra-registry node-external-ip node-internal-dns node-external-dns`)
	add(text, true, ignored, `v log vmodule lb-server-port private-registry system-default-registry
		image-credential-provider-bin-dir image-credential-provider-config default-runtime`)
	add(text, true, refused, `container-runtime-endpoint image-service-endpoint flannel-conf flannel-cni-conf
		vpn-auth vpn-auth-file`)
	add(boolean, true, refused, `docker rootless selinux disable-apiserver-lb`)

	// Servers only.
	add(text, false, works, `agent-token=K3S_AGENT_TOKEN agent-token-file=K3S_AGENT_TOKEN_FILE
		advertise-address https-listen-port cluster-domain
		write-kubeconfig=K3S_KUBECONFIG_OUTPUT write-kubeconfig-mode=K3S_KUBECONFIG_MODE
		service-node-port-range flannel-backend egress-selector-mode etcd-snapshot-dir etcd-snapshot-name
		etcd-snapshot-retention`)
	add(list, false, works, `tls-san cluster-cidr service-cidr cluster-dns disable kube-apiserver-arg
		kube-controller-manager-arg kube-scheduler-arg etcd-arg`)
	add(boolean, false, works, `cluster-init=K3S_CLUSTER_INIT disable-network-policy disable-kube-proxy
		disable-helm-controller disable-cloud-controller secrets-encryption`)
	add(text, false, ignored, `write-kubeconfig-group advertise-port default-local-storage-path servicelb-namespace
		helm-job-image etcd-snapshot-schedule-cron etcd-snapshot-reconcile-interval secrets-encryption-provider`)
	add(boolean, false, ignored, `tls-san-security flannel-ipv6-masq flannel-external-ip embedded-registry
		supervisor-metrics etcd-disable-snapshots etcd-snapshot-compress etcd-expose-metrics`)
	add(list, false, ignored, `kube-cloud-controller-manager-arg`)
	add(text, false, refused, `datastore-endpoint datastore-cafile datastore-certfile datastore-keyfile
		etcd-s3-endpoint etcd-s3-endpoint-ca etcd-s3-access-key etcd-s3-secret-key etcd-s3-session-token
		etcd-s3-bucket etcd-s3-bucket-lookup-type etcd-s3-region etcd-s3-folder etcd-s3-proxy
		etcd-s3-config-secret etcd-s3-timeout etcd-s3-retention
		cluster-reset-restore-path`)
	add(boolean, false, refused, `etcd-s3 etcd-s3-skip-ssl-verify etcd-s3-insecure kine-tls cluster-reset
		disable-agent disable-apiserver disable-controller-manager disable-scheduler disable-etcd`)
}

// short flags of k3s.
var shortFlags = map[string]string{
	"c": "config", "t": "token", "s": "server", "d": "data-dir", "o": "write-kubeconfig",
}

// packaged are the components that k3s deploys unless `disable` names them.
// The stand-in has none of them.
var packaged = []string{"coredns", "servicelb", "traefik", "local-storage", "metrics-server", "runtimes"}
