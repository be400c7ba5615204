// Package cli holds the commands.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"holdfast.test/kube/internal/agent"
	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/version"
)

// rootVariable is set by the launcher to the directory it unpacked into.
const rootVariable = "K3S_STANDIN_ROOT"

const usage = `
Usage: k3s COMMAND [FLAGS]

  server          run a server and its node
  agent           run a node that joins a server (--server, --token)
  kubectl         the Kubernetes command line
  token           create, list, delete, generate: tokens that nodes join with
  etcd-snapshot   save, ls, delete: snapshots of the datastore

Configuration: /etc/rancher/k3s/config.yaml (or --config, K3S_CONFIG_FILE); its
keys are the flags' names as k3s documents them.
`

var started = time.Now()

// say prints one line of the node's story, with seconds since the start.
func say(text string) {
	fmt.Fprintf(os.Stderr, "k3s stand-in [%6.2fs] %s\n", time.Since(started).Seconds(), text)
}

// Main runs a command and returns the exit code.
func Main(args []string) int {
	if filepath.Base(os.Args[0]) == "kubectl" {
		return kubectl(args)
	}
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		fmt.Print(version.Banner() + "\n" + usage)
		return 0
	}
	if slices.Contains([]string{"-v", "--version", "version"}, args[0]) {
		fmt.Println(version.Banner())
		return 0
	}
	var err error
	switch args[0] {
	case "kubectl":
		return kubectl(args[1:])
	case "server", "agent":
		err = node(args[0] == "agent", args[1:])
	case "token":
		err = tokens(args[1:])
	case "etcd-snapshot":
		err = snapshots(args[1:])
	default:
		err = fmt.Errorf("unknown command %q; see k3s --help", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "k3s stand-in: error:", err)
		return 1
	}
	return 0
}

func node(isAgent bool, args []string) error {
	say(version.Banner())
	c, err := config.LoadFromSystem(isAgent, args)
	if err != nil {
		return err
	}
	for _, w := range c.Warnings {
		say("warning: " + w)
	}
	if os.Geteuid() != 0 {
		return errors.New("a node must be run by root")
	}
	quiet(c.Debug)
	// Starting makes much garbage and the memory is there: collect less often
	// until the node has settled.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300)
		time.AfterFunc(3*time.Minute, func() { debug.SetGCPercent(100) })
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if isAgent {
		err = runAgent(ctx, c)
	} else {
		err = runServer(ctx, c)
	}
	if ctx.Err() != nil {
		say("stopped; containers go on running")
	}
	return err
}

// prepare does what both kinds of node need before anything starts.
func prepare(c *config.Config) error {
	if err := agent.CheckInterface(c.FlannelIface); err != nil {
		return err
	}
	if err := os.MkdirAll(c.DataDir, 0o755); err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	return agent.LinkTools(os.Getenv(rootVariable), c.PreferBundled)
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
