package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"text/template"
	"time"

	"holdfast.test/kube/internal/paths"
)

// containerdConfig is for containerd 1.7, Debian 13's. What a node does not use
// is not loaded: every plugin costs a moment at the start.
var containerdConfig = template.Must(template.New("containerd").Parse(`version = 2
root = "{{.Root}}"
state = "/run/k3s/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
]

[grpc]
  address = "{{.Socket}}"

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "10010"
  enable_selinux = false
  disable_apparmor = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  sandbox_image = "{{.Pause}}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{{.Snapshotter}}"
  default_runtime_name = "runc"
  disable_snapshot_annotations = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{{.CNIBin}}"
  conf_dir = "{{.CNIConf}}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
`))

// Containerd is the running child.
type Containerd struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// StartContainerd writes the configuration and starts Debian's containerd.
// Shims are children of PID 1: they and their containers outlive containerd,
// and the next one finds them by its state in /run.
func StartContainerd(d paths.Dirs, pauseImage, snapshotter string) (*Containerd, error) {
	for _, dir := range []string{d.Agent("etc", "containerd"), CNIConfDir(d), d.Agent("containerd"), "/run/k3s/containerd"} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	config := d.Agent("etc", "containerd", "config.toml")
	f, err := os.Create(config)
	if err != nil {
		return nil, err
	}
	err = containerdConfig.Execute(f, map[string]string{
		"Root": d.Agent("containerd"), "Socket": paths.ContainerdSocket, "Pause": pauseImage,
		"Snapshotter": snapshotter, "CNIBin": cniBinDir, "CNIConf": CNIConfDir(d),
	})
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(d.Agent("containerd", "containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	// The log is started anew when it has grown past 8 MiB.
	if st, err := log.Stat(); err == nil && st.Size() > 8<<20 {
		_ = log.Truncate(0)
	}
	defer log.Close()
	c := &Containerd{done: make(chan struct{})}
	c.cmd = exec.Command("containerd", "--config", config)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		// Signals from a terminal are for us; we pass them on in order.
		Setpgid: true,
		// A second containerd on the same state would be worse than none.
		Pdeathsig: syscall.SIGTERM,
	}
	started := make(chan error)
	go func() {
		// The death signal fires when the starting thread ends, so keep it.
		runtime.LockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("containerd: %w (it comes from the node's root: see kube/README.md)", err)
	}
	return c, nil
}

// WaitReady returns once the socket accepts connections.
func (c *Containerd) WaitReady(ctx context.Context) error {
	for {
		conn, err := net.Dial("unix", paths.ContainerdSocket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-c.done:
			return c.exited()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Wait returns when containerd has ended, which it should not before Stop.
func (c *Containerd) Wait() error {
	<-c.done
	return c.exited()
}

func (c *Containerd) exited() error {
	return fmt.Errorf("containerd ended (%v); its log is containerd.log in its directory", c.err)
}

// Stop asks containerd to end and waits; containers go on running.
func (c *Containerd) Stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

// LinkTools puts what the unpacked tree brings in front of the node's own
// tools when prefer-bundled-bin asks for it, else behind.
func LinkTools(root string, prefer bool) error {
	if root == "" {
		return nil
	}
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	bundled := filepath.Join(root, "bin")
	if prefer {
		return os.Setenv("PATH", bundled+":"+path)
	}
	return os.Setenv("PATH", path+":"+bundled)
}
