package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"holdfast.test/kube/internal/agent"
	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/control"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/supervisor"
	"holdfast.test/kube/internal/token"
)

// runServer runs a server with its node until ctx ends or a part fails.
func runServer(ctx context.Context, c *config.Config) error {
	if c.Server != nil {
		return errors.New("server: joining a cluster as a further server is not in this stand-in; start it without `server`, or join as an agent")
	}
	if err := prepare(c); err != nil {
		return err
	}
	for _, p := range c.NotPackaged() {
		say("not in this stand-in, as if disabled: " + p)
	}
	d := paths.Dirs{Data: c.DataDir}
	ips, err := agent.NodeIPs(c)
	if err != nil {
		return err
	}
	cas, err := control.EnsureCerts(c, d, ips, time.Now())
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	passwords, err := control.EnsureTokens(c, d, cas.Server.PEM)
	if err != nil {
		return err
	}
	if c.SecretsEncryption {
		if err := control.EnsureEncryption(d); err != nil {
			return err
		}
	}
	// The node's half ends first, then the API, then the datastore.
	controlCtx, stopControl := context.WithCancel(context.Background())
	nodeCtx, stopNode := context.WithCancel(ctx)
	defer stopNode()
	failed := make(chan error, 16)
	var running sync.WaitGroup
	part := func(name string, f func() error) {
		running.Add(1)
		go func() {
			defer running.Done()
			if err := f(); err != nil && controlCtx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		}()
	}
	super := supervisor.New(c, d, cas, passwords)
	part("supervisor", func() error { return super.Serve(controlCtx) })

	node := &agent.Node{
		Config: c, Dirs: d, Root: os.Getenv(rootVariable), NodeIPs: ips,
		Supervisor: c.SupervisorURL(), APIServer: c.SupervisorURL(),
		Token:  token.Token{CAHash: token.CAHash(cas.Server.PEM), User: token.NodeUser, Password: passwords.Agent},
		Say:    say,
		Joined: func() { say("node registered with the supervisor") },
	}
	nodeDone := make(chan struct{})
	go func() {
		defer close(nodeDone)
		if err := node.Run(nodeCtx); err != nil && nodeCtx.Err() == nil {
			failed <- err
		}
	}()

	plane := func() {
		part("control plane", func() error { return runControlPlane(controlCtx, c, d, ips[0], super, part) })
	}
	// The API server takes long to build and needs the datastore only towards
	// the end. One with data may itself take long: then it goes first.
	fresh := control.EtcdIsFresh(d)
	if fresh {
		plane()
	}
	etcd, err := control.StartEtcd(ctx, c, d, ips)
	if err == nil {
		say("datastore is up")
		if !fresh {
			plane()
		}
		select {
		case <-ctx.Done():
		case err = <-failed:
		case err = <-etcd.Err():
		}
	}
	if err != nil && ctx.Err() == nil {
		say("stopping: " + err.Error())
	}
	stopNode()
	<-nodeDone
	stopControl()
	wait(&running, 20*time.Second)
	if etcd != nil {
		etcd.Close()
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// wait bounds how long a part may take to end: what is lost then is only its
// last words, as the datastore is consistent at any time.
func wait(g *sync.WaitGroup, most time.Duration) {
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(most):
	}
}

// runControlPlane builds the API server, hands it to the supervisor, and starts
// the managers once it is ready.
func runControlPlane(ctx context.Context, c *config.Config, d paths.Dirs, advertise netip.Addr, super *supervisor.Server, part func(string, func() error)) error {
	if c.AdvertiseAddress.IsValid() {
		advertise = c.AdvertiseAddress
	}
	api, err := control.NewAPIServer(ctx, c, d, advertise)
	if err != nil {
		return err
	}
	part("kube-apiserver", func() error { return api.Run(ctx) })
	super.SetAPI(api.Handler)
	rest, err := clientcmd.BuildConfigFromFlags("", d.Server("cred", "supervisor.kubeconfig"))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return err
	}
	// The node starts as soon as objects can be written; the API server goes on
	// making its default roles meanwhile, which a first start takes long over.
	if err := ensureNode(ctx, client, c); err != nil {
		return err
	}
	say("API server answers")
	part("node watch", func() error { return awaitNode(ctx, client, c.NodeName) })
	super.SetSecrets(client.CoreV1().Secrets(metav1.NamespaceSystem))
	if err := waitReady(ctx, client); err != nil {
		return err
	}
	say("API server is ready")
	part("kube-controller-manager", func() error { return control.RunControllerManager(ctx, c, d) })
	part("kube-scheduler", func() error { return control.RunScheduler(ctx, c, d) })
	part("manifests", func() error { return deployManifests(ctx, c, d) })
	return nil
}

func waitReady(ctx context.Context, client kubernetes.Interface) error {
	for {
		err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// awaitNode says when the node is Ready.
func awaitNode(ctx context.Context, client kubernetes.Interface, name string) error {
	for {
		if n, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err == nil && ready(n) {
			say("node " + name + " is Ready")
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}
