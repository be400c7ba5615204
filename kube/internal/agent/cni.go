package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"holdfast.test/kube/internal/paths"
)

// cniBinDir is where Debian's containernetworking-plugins lie.
const cniBinDir = "/usr/lib/cni"

// CNIConfDir is on the writable side: the root's /etc is read-only.
func CNIConfDir(d paths.Dirs) string { return d.Agent("etc", "cni", "net.d") }

// cniConfig is a bridge whose addresses come from the node's pod networks. It
// leads nowhere beyond the node: routes between nodes come with flannel.
func cniConfig(podCIDRs []string, mtu int) ([]byte, error) {
	var ranges [][]obj
	for _, c := range podCIDRs {
		_, n, err := net.ParseCIDR(c)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, []obj{{"subnet": n.String()}})
	}
	bridge := obj{
		"type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true,
		"ipMasq": true, "hairpinMode": true, "forceAddress": true,
		"ipam": obj{"type": "host-local", "ranges": ranges},
	}
	if mtu > 0 {
		bridge["mtu"] = mtu
	}
	return json.MarshalIndent(obj{
		"cniVersion": "1.0.0", "name": "cbr0",
		"plugins": []obj{bridge, {"type": "portmap", "capabilities": obj{"portMappings": true}}},
	}, "", "  ")
}

// ConfigureNetwork waits for the node's pod network and writes the CNI
// configuration, which makes containerd's network ready.
func ConfigureNetwork(ctx context.Context, client kubernetes.Interface, d paths.Dirs, node, iface string) error {
	mtu := 0
	if iface != "" {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return fmt.Errorf("flannel-iface %q: %w", iface, err)
		}
		// As much as VXLAN would leave, so that figures do not flatter.
		mtu = i.MTU - 50
	}
	podCIDRs, err := waitPodCIDRs(ctx, client, node)
	if err != nil {
		return err
	}
	b, err := cniConfig(podCIDRs, mtu)
	if err != nil {
		return err
	}
	path := filepath.Join(CNIConfDir(d), "10-flannel.conflist")
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, b) {
		return nil
	}
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func waitPodCIDRs(ctx context.Context, client kubernetes.Interface, node string) ([]string, error) {
	for {
		n, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err == nil && len(n.Spec.PodCIDRs) > 0 {
			return n.Spec.PodCIDRs, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		w, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", node).String()})
		if err != nil {
			// The node may not exist yet, which its own credentials show as forbidden.
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(500 * time.Millisecond):
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-w.ResultChan():
		}
		w.Stop()
	}
}
