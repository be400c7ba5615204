package config

import (
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Config is the validated configuration of one node.
type Config struct {
	// Agent is set for `k3s agent`.
	Agent bool
	// NodeName is the name of the Node object.
	NodeName string
	// NodeIPs are the node's addresses, the first of each family counts.
	NodeIPs []netip.Addr
	// FlannelIface must exist before the node starts.
	FlannelIface string
	// Token and AgentToken as given; TokenFile and AgentTokenFile are read.
	Token, AgentToken string
	// Server is the URL of a server to join; nil for the first server.
	Server *url.URL
	// BindAddress is where 6443 listens; unset means every address.
	BindAddress netip.Addr
	// AdvertiseAddress is the address in the `kubernetes` endpoints.
	AdvertiseAddress netip.Addr
	// Port of the supervisor and API.
	Port int
	// TLSSANs are further names in the serving certificate.
	TLSSANs []string
	// ClusterCIDRs, ServiceCIDRs: one or two (dual-stack), never overlapping.
	ClusterCIDRs, ServiceCIDRs []netip.Prefix
	// ClusterDNS addresses lie in ServiceCIDRs.
	ClusterDNS []netip.Addr
	// ClusterDomain is the DNS suffix of services.
	ClusterDomain string
	// ClusterInit asks for embedded etcd that others may join.
	ClusterInit bool
	// Disable are packaged components, checked against k3s's list.
	Disable []string
	// Snapshots of etcd.
	SnapshotDir, SnapshotName string
	SnapshotRetention         int
	// Kubeconfig and its mode, as k3s writes it for the administrator.
	Kubeconfig     string
	KubeconfigMode fs.FileMode
	// SecretsEncryption encrypts Secrets in the datastore.
	SecretsEncryption bool
	DataDir           string
	NodeLabels        []string
	NodeTaints        []string
	ResolvConf        string
	PauseImage        string
	Snapshotter       string
	DisableKubeProxy  bool
	ProtectKernel     bool
	NodePortRange     string
	Debug             bool
	PreferBundled     bool
	// Extra arguments per component.
	KubeletArgs, ProxyArgs, APIServerArgs, ControllerArgs, SchedulerArgs, EtcdArgs []string
	// Warnings are lines to print.
	Warnings []string
}

// Load reads and validates; nothing but the named files is touched.
func Load(s Source) (*Config, error) {
	r, err := read(s)
	if err != nil {
		return nil, err
	}
	return validate(s, r)
}

// LoadFromSystem is Load on this machine.
func LoadFromSystem(agent bool, args []string) (*Config, error) {
	return Load(Source{Agent: agent, Args: args, Getenv: os.Getenv, ReadFile: os.ReadFile, Glob: filepath.Glob})
}

func (r *raw) text(name, fallback string) string {
	if v := r.values[name]; len(v) > 0 && v[len(v)-1] != "" {
		return v[len(v)-1]
	}
	return fallback
}

func (r *raw) bool(name string) bool {
	v, _ := strconv.ParseBool(r.text(name, "false"))
	return v
}

// list splits at commas, as k3s does for addresses and names.
func (r *raw) list(name, fallback string) []string {
	values := r.values[name]
	if len(values) == 0 && fallback != "" {
		values = []string{fallback}
	}
	var out []string
	for _, v := range values {
		for _, e := range strings.Split(v, ",") {
			if e = strings.TrimSpace(e); e != "" {
				out = append(out, e)
			}
		}
	}
	return out
}

func validate(s Source, r *raw) (*Config, error) {
	v := &validator{r: r, s: s}
	c := &Config{
		Agent:             s.Agent,
		FlannelIface:      r.text("flannel-iface", ""),
		Token:             v.secret("token"),
		AgentToken:        v.secret("agent-token"),
		Server:            v.server(),
		NodeIPs:           v.addrs("node-ip"),
		BindAddress:       v.addr("bind-address"),
		AdvertiseAddress:  v.addr("advertise-address"),
		Port:              v.number("https-listen-port", 6443, 1, 65535),
		TLSSANs:           r.list("tls-san", ""),
		ClusterCIDRs:      v.prefixes("cluster-cidr", "10.42.0.0/16"),
		ServiceCIDRs:      v.prefixes("service-cidr", "10.43.0.0/16"),
		ClusterDNS:        v.addrs("cluster-dns"),
		ClusterDomain:     r.text("cluster-domain", "cluster.local"),
		ClusterInit:       r.bool("cluster-init"),
		Disable:           v.disable(),
		SnapshotDir:       r.text("etcd-snapshot-dir", ""),
		SnapshotName:      r.text("etcd-snapshot-name", "etcd-snapshot"),
		SnapshotRetention: v.number("etcd-snapshot-retention", 5, 0, 1000),
		Kubeconfig:        r.text("write-kubeconfig", "/etc/rancher/k3s/k3s.yaml"),
		KubeconfigMode:    v.mode("write-kubeconfig-mode", 0o600),
		SecretsEncryption: r.bool("secrets-encryption"),
		DataDir:           r.text("data-dir", "/var/lib/rancher/k3s"),
		NodeLabels:        r.list("node-label", ""),
		NodeTaints:        r.list("node-taint", ""),
		ResolvConf:        r.text("resolv-conf", ""),
		PauseImage:        r.text("pause-image", ""),
		Snapshotter:       r.text("snapshotter", "overlayfs"),
		DisableKubeProxy:  r.bool("disable-kube-proxy"),
		ProtectKernel:     r.bool("protect-kernel-defaults"),
		NodePortRange:     r.text("service-node-port-range", "30000-32767"),
		Debug:             r.bool("debug"),
		PreferBundled:     r.bool("prefer-bundled-bin"),
		KubeletArgs:       r.values["kubelet-arg"],
		ProxyArgs:         r.values["kube-proxy-arg"],
		APIServerArgs:     r.values["kube-apiserver-arg"],
		ControllerArgs:    r.values["kube-controller-manager-arg"],
		SchedulerArgs:     r.values["kube-scheduler-arg"],
		EtcdArgs:          r.values["etcd-arg"],
		Warnings:          r.warnings,
	}
	c.NodeName = v.nodeName()
	v.cluster(c)
	v.choice("flannel-backend", "vxlan", "none", "vxlan", "host-gw", "wireguard-native")
	v.choice("egress-selector-mode", "agent", "agent", "cluster", "pod", "disabled")
	if v.err != nil {
		return nil, v.err
	}
	return c, nil
}

func (v *validator) nodeName() string {
	name := v.r.text("node-name", "")
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			v.fail("node-name", "", "is unset and the host name cannot be read")
			return ""
		}
		name = strings.ToLower(host)
	}
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		v.fail("node-name", name, "is no Kubernetes node name: "+errs[0])
	}
	return name
}

func (v *validator) fail(key, value, why string) {
	if v.err == nil {
		v.err = fmt.Errorf("configuration key %q: %q %s", key, value, why)
	}
}

// SupervisorURL is where the supervisor and the API answer on this node.
func (c *Config) SupervisorURL() string {
	host := netip.MustParseAddr("127.0.0.1")
	if c.BindAddress.IsValid() && !c.BindAddress.IsUnspecified() {
		host = c.BindAddress
	}
	return "https://" + netip.AddrPortFrom(host, uint16(c.Port)).String()
}
