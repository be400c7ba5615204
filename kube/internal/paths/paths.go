// Package paths names the files that k3s documents or that people rely on.
package paths

import "path/filepath"

// Dirs are the directories of one node.
type Dirs struct {
	// Data is the data directory, usually /var/lib/rancher/k3s.
	Data string
}

// ContainerdSocket is where k3s's containerd listens.
const ContainerdSocket = "/run/k3s/containerd/containerd.sock"

// Server is a file below <data-dir>/server.
func (d Dirs) Server(parts ...string) string {
	return filepath.Join(append([]string{d.Data, "server"}, parts...)...)
}

// TLS is a file below <data-dir>/server/tls.
func (d Dirs) TLS(parts ...string) string {
	return d.Server(append([]string{"tls"}, parts...)...)
}

// Agent is a file below <data-dir>/agent.
func (d Dirs) Agent(parts ...string) string {
	return filepath.Join(append([]string{d.Data, "agent"}, parts...)...)
}

// EtcdSocket is where the datastore answers; its directory is root's alone.
func (d Dirs) EtcdSocket() string { return d.Server("db", "etcd.sock") }

// Etcd is the datastore's directory.
func (d Dirs) Etcd() string { return d.Server("db", "etcd") }

// Snapshots is the default directory of etcd snapshots.
func (d Dirs) Snapshots() string { return d.Server("db", "snapshots") }
