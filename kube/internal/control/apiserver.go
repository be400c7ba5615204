package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/paths"
)

// loopbackURL is the API server's own listener, as in k3s: 6444 on loopback.
// What comes to 6443 is handed to the same handler within the process.
const (
	loopbackPort = 6444
	loopbackURL  = "https://127.0.0.1:6444"
)

// APIServer is a prepared API server.
type APIServer struct {
	// Handler serves the API with authentication, authorization and admission;
	// it takes client certificates from the request's TLS state.
	Handler http.Handler
	run     func(context.Context) error
}

// Run serves until ctx ends.
func (a *APIServer) Run(ctx context.Context) error { return a.run(ctx) }

// NewAPIServer builds kube-apiserver in this process.
func NewAPIServer(ctx context.Context, c *config.Config, d paths.Dirs, advertise netip.Addr) (*APIServer, error) {
	s := options.NewServerRunOptions()
	fs := flagSet("kube-apiserver")
	named := s.Flags()
	for _, f := range named.FlagSets {
		fs.AddFlagSet(f)
	}
	if err := fs.Parse(append(apiServerArgs(c, d, advertise), dashes(c.APIServerArgs)...)); err != nil {
		return nil, fmt.Errorf("kube-apiserver-arg: %w", err)
	}
	if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	completed, err := s.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return nil, fmt.Errorf("kube-apiserver: %w", utilerrors.NewAggregate(errs))
	}
	cfg, err := app.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	// The `kubernetes` service must lead to the port that others can reach.
	cfg.KubeAPIs.ControlPlane.Generic.LoopbackClientConfig.QPS = -1
	serving := cfg.KubeAPIs.ControlPlane.Generic.SecureServing
	serving.Listener = advertised{serving.Listener, c.Port}
	complete, err := cfg.Complete()
	if err != nil {
		return nil, err
	}
	chain, err := app.CreateServerChain(complete)
	if err != nil {
		return nil, err
	}
	prepared, err := chain.PrepareRun()
	if err != nil {
		return nil, err
	}
	return &APIServer{Handler: chain.GenericAPIServer.Handler, run: prepared.Run}, nil
}

// advertised is a listener that tells another port than its own.
type advertised struct {
	net.Listener
	port int
}

func (a advertised) Addr() net.Addr {
	if t, ok := a.Listener.Addr().(*net.TCPAddr); ok {
		return &net.TCPAddr{IP: t.IP, Port: a.port, Zone: t.Zone}
	}
	return a.Listener.Addr()
}

func apiServerArgs(c *config.Config, d paths.Dirs, advertise netip.Addr) []string {
	args := []string{
		"--advertise-address=" + advertise.String(),
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--api-audiences=https://kubernetes.default.svc." + c.ClusterDomain + ",k3s",
		"--authorization-mode=Node,RBAC",
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", loopbackPort),
		"--cert-dir=" + d.TLS("temporary-certs"),
		"--client-ca-file=" + d.TLS("client-ca.crt"),
		"--enable-admission-plugins=NodeRestriction",
		// Fair queues protect a busy cluster; here they are only objects to make.
		"--enable-priority-and-fairness=false",
		"--enable-bootstrap-token-auth=true",
		"--etcd-servers=unix://" + d.EtcdSocket(),
		"--kubelet-certificate-authority=" + d.TLS("server-ca.crt"),
		"--kubelet-client-certificate=" + d.TLS("client-kube-apiserver.crt"),
		"--kubelet-client-key=" + d.TLS("client-kube-apiserver.key"),
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"--profiling=false",
		"--proxy-client-cert-file=" + d.TLS("client-auth-proxy.crt"),
		"--proxy-client-key-file=" + d.TLS("client-auth-proxy.key"),
		"--requestheader-allowed-names=system:auth-proxy",
		"--requestheader-client-ca-file=" + d.TLS("request-header-ca.crt"),
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--service-account-issuer=https://kubernetes.default.svc." + c.ClusterDomain,
		"--service-account-key-file=" + d.TLS("service.key"),
		"--service-account-signing-key-file=" + d.TLS("service.key"),
		"--service-cluster-ip-range=" + joinPrefixes(c.ServiceCIDRs),
		"--service-node-port-range=" + c.NodePortRange,
		"--tls-cert-file=" + d.TLS("serving-kube-apiserver.crt"),
		"--tls-private-key-file=" + d.TLS("serving-kube-apiserver.key"),
	}
	if c.SecretsEncryption {
		args = append(args, "--encryption-provider-config="+d.Server("cred", "encryption-config.json"))
	}
	return args
}

func joinPrefixes(p []netip.Prefix) string {
	s := make([]string, len(p))
	for i := range p {
		s[i] = p[i].String()
	}
	return strings.Join(s, ",")
}

// dashes turns k3s's "name=value" component arguments into flags.
func dashes(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = "--" + strings.TrimLeft(a, "-")
	}
	return out
}

// flagSet keeps remarks on deprecated flags to itself; errors are returned.
func flagSet(name string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}
