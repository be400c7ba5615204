package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/kubeconfig"
	"holdfast.test/kube/internal/nodepw"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/supervisor"
	"holdfast.test/kube/internal/token"
)

// Node is what the node's half is told.
type Node struct {
	Config *config.Config
	Dirs   paths.Dirs
	// Root is the unpacked tree; the pod program lies in its bin.
	Root    string
	NodeIPs []netip.Addr
	// Supervisor and Token to join with; APIServer for kubelet and kube-proxy.
	Supervisor, APIServer string
	Token                 token.Token
	Say                   func(string)
	// Joined is called once the node has its certificates.
	Joined func()
}

// NodeIPs are the configured addresses, or that of the default route.
func NodeIPs(c *config.Config) ([]netip.Addr, error) {
	if len(c.NodeIPs) > 0 {
		return c.NodeIPs, nil
	}
	ip, err := utilnet.ChooseHostInterface()
	if err != nil {
		return nil, fmt.Errorf("no node-ip is configured and no default route tells one: %w", err)
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return nil, fmt.Errorf("the default route's address %v is not usable", ip)
	}
	return []netip.Addr{a.Unmap()}, nil
}

// Run joins and runs the node until ctx ends or a part of it fails. containerd
// is stopped last and gently, so that containers go on.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	password, err := nodepw.Ensure(nodepw.File)
	if err != nil {
		return err
	}
	join := &Joiner{Server: n.Supervisor, Token: n.Token, Dirs: n.Dirs, NodeName: n.Config.NodeName, Password: password, NodeIPs: n.NodeIPs}
	var cluster *supervisor.ClusterConfig
	if n.Config.Agent {
		// Nothing starts on a node that is not let in. A server's own node need
		// not wait: its supervisor is still starting.
		if cluster, err = join.Join(ctx, n.Say); err != nil {
			return err
		}
	}
	SetSysctls(n.Say)
	pause := n.Config.PauseImage
	if pause == "" {
		pause = PauseImage
	}
	containerd, err := StartContainerd(n.Dirs, pause, n.Config.Snapshotter)
	if err != nil {
		return err
	}
	defer containerd.Stop()
	failed := make(chan error, 8)
	part := func(name string, f func() error) {
		go func() {
			if err := f(); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			} else if ctx.Err() == nil {
				failed <- fmt.Errorf("%s ended", name)
			}
		}()
	}
	part("containerd", containerd.Wait)

	images := make(chan error, 1)
	go func() {
		err := containerd.WaitReady(ctx)
		if err == nil {
			err = ImportImages(ctx, n.Dirs, filepath.Join(n.Root, "bin", "pod"), n.Say)
		}
		images <- err
	}()
	if cluster == nil {
		if cluster, err = join.Join(ctx, n.Say); err != nil {
			return err
		}
	}
	n.Joined()
	client, err := n.kubeconfigs()
	if err != nil {
		return err
	}
	if err := <-images; err != nil {
		return err
	}
	// Before the kubelet where the pod network is known already, so that the
	// first status is Ready.
	network := make(chan error, 1)
	go func() {
		network <- ConfigureNetwork(ctx, client, n.Dirs, n.Config.NodeName, n.Config.FlannelIface)
	}()
	part("kubelet", func() error { return RunKubelet(ctx, n.Config, n.Dirs, cluster, n.NodeIPs) })
	if !n.Config.DisableKubeProxy {
		part("kube-proxy", func() error { return RunProxy(ctx, n.Config, n.Dirs, cluster) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case err := <-network:
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("pod network: %w", err)
			}
		}
	}
}

// kubeconfigs writes kubelet's and kube-proxy's and returns the kubelet's client.
func (n *Node) kubeconfigs() (kubernetes.Interface, error) {
	for name, cert := range map[string]string{"kubelet": "client-kubelet", "kubeproxy": "client-kube-proxy"} {
		k := kubeconfig.Files{Server: n.APIServer, CA: n.Dirs.Agent("server-ca.crt"), Cert: n.Dirs.Agent(cert + ".crt"), Key: n.Dirs.Agent(cert + ".key")}
		if err := k.Write(n.Dirs.Agent(name+".kubeconfig"), 0o600, false); err != nil {
			return nil, err
		}
	}
	rest, err := clientcmd.BuildConfigFromFlags("", n.Dirs.Agent("kubelet.kubeconfig"))
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(rest)
}

// CheckInterface fails early, with a clear word, when the interface that the
// mesh should have made is not there.
func CheckInterface(name string) error {
	if name == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", name)); err != nil {
		return fmt.Errorf("flannel-iface %q does not exist: it must be there before k3s starts", name)
	}
	return nil
}
