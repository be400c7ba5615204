package agent

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/supervisor"
)

// RunKubelet runs the kubelet in this process until ctx ends.
func RunKubelet(ctx context.Context, c *config.Config, d paths.Dirs, cluster *supervisor.ClusterConfig, nodeIPs []netip.Addr) error {
	flags := options.NewKubeletFlags()
	conf, err := options.NewKubeletConfiguration()
	if err != nil {
		return err
	}
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	// Remarks on deprecated flags are of no use; errors are returned.
	fs.SetOutput(io.Discard)
	flags.AddFlags(fs)
	options.AddKubeletConfigFlags(fs, conf)
	if err := fs.Parse(append(kubeletArgs(c, d, cluster, nodeIPs), dashes(c.KubeletArgs)...)); err != nil {
		return fmt.Errorf("kubelet-arg: %w", err)
	}
	for _, dir := range []string{conf.StaticPodPath, d.Agent("kubelet")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(conf.FeatureGates); err != nil {
		return err
	}
	if err := options.ValidateKubeletFlags(flags); err != nil {
		return err
	}
	if err := validation.ValidateKubeletConfiguration(conf, utilfeature.DefaultFeatureGate); err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	server := &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *conf}
	deps, err := kubelet.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	return kubelet.Run(ctx, server, deps, utilfeature.DefaultFeatureGate)
}

func kubeletArgs(c *config.Config, d paths.Dirs, cluster *supervisor.ClusterConfig, nodeIPs []netip.Addr) []string {
	args := []string{
		"--address=0.0.0.0",
		"--anonymous-auth=false",
		"--authentication-token-webhook=true",
		"--authorization-mode=Webhook",
		"--cert-dir=" + d.Agent("kubelet", "pki"),
		"--cgroup-driver=cgroupfs",
		"--client-ca-file=" + d.Agent("client-ca.crt"),
		"--cluster-dns=" + joinAddrs(cluster.ClusterDNS),
		"--cluster-domain=" + cluster.ClusterDomain,
		"--container-runtime-endpoint=unix://" + paths.ContainerdSocket,
		"--eviction-hard=imagefs.available<5%,nodefs.available<5%",
		"--eviction-minimum-reclaim=imagefs.available=10%,nodefs.available=10%",
		"--fail-swap-on=false",
		"--healthz-bind-address=127.0.0.1",
		"--hostname-override=" + c.NodeName,
		"--kubeconfig=" + d.Agent("kubelet.kubeconfig"),
		"--pod-manifest-path=" + d.Agent("pod-manifests"),
		"--read-only-port=0",
		"--serialize-image-pulls=false",
		// The default lies below /usr, which a read-only root does not allow.
		"--volume-plugin-dir=/var/lib/kubelet/volumeplugins",
		"--tls-cert-file=" + d.Agent("serving-kubelet.crt"),
		"--tls-private-key-file=" + d.Agent("serving-kubelet.key"),
	}
	if len(nodeIPs) > 0 {
		args = append(args, "--node-ip="+joinAddrs(nodeIPs))
	}
	if len(c.NodeLabels) > 0 {
		args = append(args, "--node-labels="+strings.Join(c.NodeLabels, ","))
	}
	if len(c.NodeTaints) > 0 {
		args = append(args, "--register-with-taints="+strings.Join(c.NodeTaints, ","))
	}
	if c.ResolvConf != "" {
		args = append(args, "--resolv-conf="+c.ResolvConf)
	}
	if c.ProtectKernel {
		args = append(args, "--protect-kernel-defaults=true")
	}
	return args
}

// RunProxy runs kube-proxy in this process until it fails.
func RunProxy(ctx context.Context, c *config.Config, d paths.Dirs, cluster *supervisor.ClusterConfig) error {
	prefixes := make([]string, len(cluster.ClusterCIDRs))
	for i, p := range cluster.ClusterCIDRs {
		prefixes[i] = p.String()
	}
	opts := proxy.NewOptions()
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	opts.AddFlags(fs)
	err := fs.Parse(append([]string{
		"--bind-address=127.0.0.1",
		"--cluster-cidr=" + strings.Join(prefixes, ","),
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-close-wait=0s",
		"--conntrack-tcp-timeout-established=0s",
		"--healthz-bind-address=127.0.0.1:10256",
		"--hostname-override=" + c.NodeName,
		"--kubeconfig=" + d.Agent("kubeproxy.kubeconfig"),
		"--metrics-bind-address=127.0.0.1:10249",
		"--proxy-mode=iptables",
	}, dashes(c.ProxyArgs)...))
	if err != nil {
		return fmt.Errorf("kube-proxy-arg: %w", err)
	}
	if err := opts.Complete(fs); err != nil {
		return err
	}
	if err := opts.Validate(); err != nil {
		return err
	}
	return opts.Run(ctx)
}

func joinAddrs(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ",")
}

func dashes(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = "--" + strings.TrimLeft(a, "-")
	}
	return out
}
