package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/control"
	"holdfast.test/kube/internal/nodepw"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/pki"
)

// ClusterConfig is what an agent learns from its server.
type ClusterConfig struct {
	ClusterCIDRs  []netip.Prefix `json:"clusterCIDRs"`
	ServiceCIDRs  []netip.Prefix `json:"serviceCIDRs"`
	ClusterDNS    []netip.Addr   `json:"clusterDNS"`
	ClusterDomain string         `json:"clusterDomain"`
}

// Server is the public port.
type Server struct {
	cfg  *config.Config
	dirs paths.Dirs
	cas  *control.CAs
	auth authenticator

	api     atomic.Pointer[http.Handler]
	secrets atomic.Pointer[clientcorev1.SecretInterface]
}

// New makes a server that knows its CAs and passwords; the API comes later.
func New(cfg *config.Config, dirs paths.Dirs, cas *control.CAs, passwords control.Passwords) *Server {
	s := &Server{cfg: cfg, dirs: dirs, cas: cas}
	pool := x509.NewCertPool()
	pool.AddCert(cas.Client.Cert)
	s.auth = authenticator{passwords: passwords, clients: pool, secrets: s.kubeSystem, now: time.Now}
	return s
}

// SetAPI hands over the API server's handler.
func (s *Server) SetAPI(h http.Handler) { s.api.Store(&h) }

// SetSecrets hands over the Secrets of kube-system once the API is ready.
func (s *Server) SetSecrets(c clientcorev1.SecretInterface) { s.secrets.Store(&c) }

func (s *Server) kubeSystem() clientcorev1.SecretInterface {
	if p := s.secrets.Load(); p != nil {
		return *p
	}
	return nil
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	cert, err := tls.LoadX509KeyPair(s.dirs.TLS("serving-kube-apiserver.crt"), s.dirs.TLS("serving-kube-apiserver.key"))
	if err != nil {
		return err
	}
	addr := fmt.Sprintf(":%d", s.cfg.Port)
	if s.cfg.BindAddress.IsValid() {
		addr = netip.AddrPortFrom(s.cfg.BindAddress, uint16(s.cfg.Port)).String()
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	server := &http.Server{
		Handler:           s.mux(),
		ReadHeaderTimeout: 32 * time.Second,
		IdleTimeout:       90 * time.Second,
		// A client that hangs up during the handshake is no news.
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{cert},
			// The API server's authenticator verifies them itself.
			ClientAuth: tls.RequestClientCert,
			ClientCAs:  s.auth.clients,
			NextProtos: []string{"h2", "http/1.1"},
		},
	}
	if err := http2.ConfigureServer(server, &http2.Server{IdleTimeout: 90 * time.Second}); err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) mux() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /cacerts", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(s.cas.Server.PEM)
	})
	m.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "pong") })
	m.HandleFunc("GET /v1-k3s/readyz", s.guard(agentRole, func(w http.ResponseWriter, _ *http.Request, _ caller) error {
		_, err := io.WriteString(w, "ok")
		return err
	}))
	m.HandleFunc("GET /v1-k3s/server-ca.crt", s.guard(agentRole, s.pem(s.cas.Server.PEM)))
	m.HandleFunc("GET /v1-k3s/client-ca.crt", s.guard(agentRole, s.pem(s.cas.Client.PEM)))
	m.HandleFunc("GET /v1-k3s/config", s.guard(agentRole, s.config))
	m.HandleFunc("POST /v1-k3s/client-kubelet.crt", s.guard(agentRole, s.nodeCert(s.clientKubelet)))
	m.HandleFunc("POST /v1-k3s/serving-kubelet.crt", s.guard(agentRole, s.nodeCert(s.servingKubelet)))
	m.HandleFunc("POST /v1-k3s/client-kube-proxy.crt", s.guard(agentRole, s.nodeCert(s.clientProxy)))
	m.HandleFunc("GET /v1-k3s/server-bootstrap", s.guard(serverRole, s.bootstrap))
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if h := s.api.Load(); h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the API server is starting", http.StatusServiceUnavailable)
	})
	return m
}

type handler func(http.ResponseWriter, *http.Request, caller) error

// guard lets in callers with at least the given role. Until the API server is
// ready nobody can be told from a stranger: 503 asks to come back.
func (s *Server) guard(least role, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.kubeSystem() == nil {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the API server is starting", http.StatusServiceUnavailable)
			return
		}
		c := s.auth.caller(r)
		if c.role < least {
			code := http.StatusUnauthorized
			if c.role != nobody {
				code = http.StatusForbidden
			}
			http.Error(w, errUnauthorized.Error(), code)
			return
		}
		switch err := h(w, r, c); {
		case err == nil:
		case errors.Is(err, nodepw.ErrRejected), errors.Is(err, errUnauthorized):
			http.Error(w, err.Error(), http.StatusForbidden)
		case errors.Is(err, errBadRequest):
			http.Error(w, err.Error(), http.StatusBadRequest)
		default:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

var errBadRequest = errors.New("bad request")

func (s *Server) pem(b []byte) handler {
	return func(w http.ResponseWriter, _ *http.Request, _ caller) error {
		_, err := w.Write(b)
		return err
	}
}

func (s *Server) config(w http.ResponseWriter, _ *http.Request, _ caller) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(ClusterConfig{s.cfg.ClusterCIDRs, s.cfg.ServiceCIDRs, s.cfg.ClusterDNS, s.cfg.ClusterDomain})
}

// nodeCert checks the node's name and password before it signs anything.
func (s *Server) nodeCert(sign func(name string, ips []netip.Addr) (*pki.CA, pki.Leaf)) handler {
	return func(w http.ResponseWriter, r *http.Request, c caller) error {
		name, password := strings.ToLower(r.Header.Get("k3s-Node-Name")), r.Header.Get("k3s-Node-Password")
		if name == "" || password == "" {
			return fmt.Errorf("%w: the node name or password is not set", errBadRequest)
		}
		if c.node != "" && c.node != name {
			return fmt.Errorf("%w: node %s asks in the name of %s", errUnauthorized, c.node, name)
		}
		if err := nodepw.Check(r.Context(), s.kubeSystem(), name, password); err != nil {
			return err
		}
		var ips []netip.Addr
		for _, text := range strings.Split(r.Header.Get("k3s-Node-IP"), ",") {
			ip, err := netip.ParseAddr(strings.TrimSpace(text))
			if err != nil {
				return fmt.Errorf("%w: node address %q", errBadRequest, text)
			}
			ips = append(ips, ip)
		}
		csr, err := request(r.Body)
		if err != nil {
			return fmt.Errorf("%w: %w", errBadRequest, err)
		}
		ca, leaf := sign(name, ips)
		b, err := ca.Sign(leaf, csr.PublicKey, time.Now())
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
}

func (s *Server) clientKubelet(name string, _ []netip.Addr) (*pki.CA, pki.Leaf) {
	return s.cas.Client, pki.Leaf{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}, Client: true}
}

func (s *Server) servingKubelet(name string, ips []netip.Addr) (*pki.CA, pki.Leaf) {
	ips = append(ips, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	return s.cas.Server, pki.Leaf{CommonName: name, DNSNames: []string{name, "localhost"}, IPs: ips, Server: true}
}

func (s *Server) clientProxy(string, []netip.Addr) (*pki.CA, pki.Leaf) {
	return s.cas.Client, pki.Leaf{CommonName: "system:kube-proxy", Client: true}
}

// request reads a signing request and checks that the sender has its key.
func request(body io.Reader) (*x509.CertificateRequest, error) {
	b, err := io.ReadAll(io.LimitReader(body, 64<<10))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("no certificate request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return csr, csr.CheckSignature()
}
