package control

import (
	"net/netip"
	"os"
	"time"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/kubeconfig"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/pki"
)

// CAs sign what a cluster uses.
type CAs struct {
	// Server signs serving certificates; its hash stands in the tokens.
	Server *pki.CA
	// Client signs what the API server trusts as users.
	Client *pki.CA
	// RequestHeader signs the aggregator's client.
	RequestHeader *pki.CA
	// EtcdPeer signs what etcd members show each other.
	EtcdPeer *pki.CA
}

// EnsureCerts makes what is missing and renews what ends soon. This is the only
// moment at which anything is renewed.
func EnsureCerts(c *config.Config, d paths.Dirs, nodeIPs []netip.Addr, now time.Time) (*CAs, error) {
	for _, dir := range []string{d.TLS(), d.Server("cred"), d.Server("db")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	cas := &CAs{}
	for _, ca := range []struct {
		to         **pki.CA
		base, name string
	}{
		{&cas.Server, d.TLS("server-ca"), "k3s-server-ca"},
		{&cas.Client, d.TLS("client-ca"), "k3s-client-ca"},
		{&cas.RequestHeader, d.TLS("request-header-ca"), "k3s-request-header-ca"},
		{&cas.EtcdPeer, d.TLS("etcd", "peer-ca"), "etcd-peer-ca"},
	} {
		made, err := pki.EnsureCA(ca.base, ca.name, now)
		if err != nil {
			return nil, err
		}
		*ca.to = made
	}
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	serving := pki.Leaf{
		CommonName: "kube-apiserver", Server: true,
		DNSNames: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc." + c.ClusterDomain, "localhost", c.NodeName},
		IPs: append(append([]netip.Addr{}, loopback...), nodeIPs...),
	}
	for i := range c.ServiceCIDRs {
		serving.IPs = append(serving.IPs, c.ServiceIP(i))
	}
	for _, a := range []netip.Addr{c.AdvertiseAddress, c.BindAddress} {
		if a.IsValid() && !a.IsUnspecified() {
			serving.IPs = append(serving.IPs, a)
		}
	}
	for _, san := range c.TLSSANs {
		if ip, err := netip.ParseAddr(san); err == nil {
			serving.IPs = append(serving.IPs, ip)
		} else {
			serving.DNSNames = append(serving.DNSNames, san)
		}
	}
	for _, l := range []struct {
		ca   *pki.CA
		base string
		leaf pki.Leaf
	}{
		{cas.Server, d.TLS("serving-kube-apiserver"), serving},
		{cas.Client, d.TLS("client-admin"), pki.Leaf{CommonName: "system:admin", Organization: []string{"system:masters"}, Client: true}},
		{cas.Client, d.TLS("client-supervisor"), pki.Leaf{CommonName: "system:k3s-supervisor", Organization: []string{"system:masters"}, Client: true}},
		{cas.Client, d.TLS("client-controller"), pki.Leaf{CommonName: "system:kube-controller-manager", Client: true}},
		{cas.Client, d.TLS("client-scheduler"), pki.Leaf{CommonName: "system:kube-scheduler", Client: true}},
		{cas.Client, d.TLS("client-kube-apiserver"), pki.Leaf{CommonName: "system:apiserver", Organization: []string{"system:masters"}, Client: true}},
		{cas.RequestHeader, d.TLS("client-auth-proxy"), pki.Leaf{CommonName: "system:auth-proxy", Client: true}},
		{cas.EtcdPeer, d.TLS("etcd", "peer-server-client"), pki.Leaf{CommonName: "etcd-peer", Server: true, Client: true, IPs: append(append([]netip.Addr{}, loopback...), nodeIPs...)}},
	} {
		if _, err := l.ca.Ensure(l.base, l.leaf, now); err != nil {
			return nil, err
		}
	}
	if err := pki.EnsureKey(d.TLS("service.key")); err != nil {
		return nil, err
	}
	return cas, writeKubeconfigs(c, d)
}

// writeKubeconfigs writes the components' and the administrator's files.
func writeKubeconfigs(c *config.Config, d paths.Dirs) error {
	for name, cert := range map[string]string{"controller": "client-controller", "scheduler": "client-scheduler", "supervisor": "client-supervisor"} {
		k := kubeconfig.Files{Server: loopbackURL, CA: d.TLS("server-ca.crt"), Cert: d.TLS(cert + ".crt"), Key: d.TLS(cert + ".key")}
		if err := k.Write(d.Server("cred", name+".kubeconfig"), 0o600, false); err != nil {
			return err
		}
	}
	admin := kubeconfig.Files{Server: c.SupervisorURL(), CA: d.TLS("server-ca.crt"), Cert: d.TLS("client-admin.crt"), Key: d.TLS("client-admin.key")}
	return admin.Write(c.Kubeconfig, c.KubeconfigMode, true)
}
