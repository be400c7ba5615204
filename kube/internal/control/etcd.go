package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/token"
)

// StartEtcd starts the datastore in this process. k3s keeps a sole server on
// SQLite unless cluster-init asks for etcd; the stand-in uses etcd for both.
// The API server reaches it through a socket, so that nothing on the loopback
// interface can.
func StartEtcd(ctx context.Context, c *config.Config, d paths.Dirs, nodeIPs []netip.Addr) (*embed.Etcd, error) {
	if err := os.MkdirAll(d.Etcd(), 0o700); err != nil {
		return nil, err
	}
	name, err := etcdName(d, c.NodeName)
	if err != nil {
		return nil, err
	}
	peer := netip.MustParseAddr("127.0.0.1")
	if c.ClusterInit && len(nodeIPs) > 0 {
		peer = nodeIPs[0]
	}
	peerURL := url.URL{Scheme: "https", Host: netip.AddrPortFrom(peer, 2380).String()}
	clientURL := url.URL{Scheme: "unix", Path: d.EtcdSocket()}

	e := embed.NewConfig()
	e.Name = name
	e.Dir = d.Etcd()
	e.ListenPeerUrls, e.AdvertisePeerUrls = []url.URL{peerURL}, []url.URL{peerURL}
	e.ListenClientUrls = []url.URL{clientURL}
	// etcd wants a host and a port here; members only show it to each other.
	e.AdvertiseClientUrls = []url.URL{{Scheme: "https", Host: netip.AddrPortFrom(peer, 2379).String()}}
	e.InitialCluster = name + "=" + peerURL.String()
	e.PeerTLSInfo.CertFile = d.TLS("etcd", "peer-server-client.crt")
	e.PeerTLSInfo.KeyFile = d.TLS("etcd", "peer-server-client.key")
	e.PeerTLSInfo.TrustedCAFile = d.TLS("etcd", "peer-ca.crt")
	e.PeerTLSInfo.ClientCertAuth = true
	e.LogLevel = "error"
	// k3s's own figures: room for slow disks and home uplinks.
	e.TickMs, e.ElectionMs = 500, 5000
	// A single member need not wait for others before it elects itself.
	e.InitialElectionTickAdvance = true
	if err := etcdArgs(e, c.EtcdArgs); err != nil {
		return nil, err
	}
	server, err := embed.StartEtcd(e)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case err := <-server.Err():
		return nil, fmt.Errorf("etcd: %w", err)
	case <-ctx.Done():
		server.Close()
		return nil, ctx.Err()
	}
}

// EtcdIsFresh says that the datastore has no data yet.
func EtcdIsFresh(d paths.Dirs) bool {
	_, err := os.Stat(d.Server("db", "etcd", "member"))
	return errors.Is(err, fs.ErrNotExist)
}

// etcdName is the member's name: the node's with a random end, kept, so that a
// node that left and joins anew is another member.
func etcdName(d paths.Dirs, node string) (string, error) {
	path := d.Server("db", "etcd-name")
	b, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(b)) != "" {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	end, err := token.NewPassword()
	if err != nil {
		return "", err
	}
	name := node + "-" + end[:8]
	return name, os.WriteFile(path, []byte(name), 0o600)
}

func etcdArgs(e *embed.Config, args []string) error {
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		var n uint
		var err error
		switch name {
		case "heartbeat-interval", "election-timeout":
			_, err = fmt.Sscanf(value, "%d", &n)
		default:
			err = errors.New("only heartbeat-interval and election-timeout are known here")
		}
		if err != nil {
			return fmt.Errorf("etcd-arg %q: %w", a, err)
		}
		if name == "heartbeat-interval" {
			e.TickMs = n
		} else {
			e.ElectionMs = n
		}
	}
	return nil
}

// EtcdClient connects to the running datastore of this node.
func EtcdClient(d paths.Dirs) (*clientv3.Client, error) {
	if _, err := os.Stat(d.EtcdSocket()); err != nil {
		return nil, fmt.Errorf("no datastore is running here: %w", err)
	}
	return clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + d.EtcdSocket()}, DialTimeout: 10 * time.Second})
}
