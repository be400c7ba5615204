package cli

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"holdfast.test/kube/internal/config"
)

// controlPlaneLabel is a role that a kubelet may not give itself.
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// ensureNode makes the server's own Node object before its kubelet starts, when
// the cluster has no node yet, with the pod networks that the controller manager
// would give the first node. On a slow machine this saves the rounds in which
// kubelet, controller manager and network wait for each other.
func ensureNode(ctx context.Context, client kubernetes.Interface, c *config.Config) error {
	for {
		err := tryEnsureNode(ctx, client, c)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			return fmt.Errorf("node %s: %w", c.NodeName, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func tryEnsureNode(ctx context.Context, client kubernetes.Interface, c *config.Config) error {
	nodes := client.CoreV1().Nodes()
	list, err := nodes.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range list.Items {
		if n.Name != c.NodeName {
			continue
		}
		if n.Labels[controlPlaneLabel] == "true" {
			return nil
		}
		patch := []byte(`{"metadata":{"labels":{"` + controlPlaneLabel + `":"true"}}}`)
		_, err := nodes.Patch(ctx, c.NodeName, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}
	n := newNode(c)
	if len(list.Items) == 0 {
		for _, p := range c.ClusterCIDRs {
			n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, firstPodNetwork(p).String())
		}
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
	if _, err = nodes.Create(ctx, n, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// newNode carries what the kubelet would register and does not add later.
func newNode(c *config.Config) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.NodeName, Labels: map[string]string{
		controlPlaneLabel:         "true",
		corev1.LabelHostname:      c.NodeName,
		corev1.LabelOSStable:      runtime.GOOS,
		corev1.LabelArchStable:    runtime.GOARCH,
		"beta.kubernetes.io/os":   runtime.GOOS,
		"beta.kubernetes.io/arch": runtime.GOARCH,
	}}}
	for _, l := range c.NodeLabels {
		name, value, _ := strings.Cut(l, "=")
		n.Labels[name] = value
	}
	for _, t := range append([]string{"node.kubernetes.io/not-ready:NoSchedule"}, c.NodeTaints...) {
		rest, effect, _ := strings.Cut(t, ":")
		name, value, _ := strings.Cut(rest, "=")
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: name, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return n
}

// firstPodNetwork is the first that kube-controller-manager hands out: /24 of an
// IPv4 range, /64 of an IPv6 range, its defaults.
func firstPodNetwork(cluster netip.Prefix) netip.Prefix {
	bits := 24
	if cluster.Addr().Is6() {
		bits = 64
	}
	return netip.PrefixFrom(cluster.Addr(), max(bits, cluster.Bits()))
}
