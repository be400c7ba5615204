// Package supervisor answers on the node's public port (6443): what k3s serves
// for joining nodes, and everything else by the API server's handler.
package supervisor

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"holdfast.test/kube/internal/control"
	"holdfast.test/kube/internal/token"
)

// caller is who asks: a role, and for a node's certificate its name.
type caller struct {
	role role
	node string
}

type role int

const (
	nobody role = iota
	// agentRole may fetch what a node needs.
	agentRole
	// serverRole may also fetch the cluster's keys.
	serverRole
)

// authenticator decides who a request comes from.
type authenticator struct {
	passwords control.Passwords
	clients   *x509.CertPool
	// secrets of kube-system; nil until the API server answers.
	secrets func() clientcorev1.SecretInterface
	now     func() time.Time
}

func (a authenticator) caller(r *http.Request) caller {
	if user, password, ok := r.BasicAuth(); ok {
		return caller{role: a.basic(user, password)}
	}
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if a.bootstrap(r.Context(), bearer) {
			return caller{role: agentRole}
		}
		return caller{}
	}
	return a.certificate(r)
}

// basic keeps the passwords apart: an agent's never makes a server.
func (a authenticator) basic(user, password string) role {
	switch {
	case user == token.ServerUser && equal(password, a.passwords.Server):
		return serverRole
	case user == token.NodeUser && equal(password, a.passwords.Agent):
		return agentRole
	}
	return nobody
}

func equal(a, b string) bool {
	return b != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// bootstrap checks a token that `k3s token create` or kubeadm made.
func (a authenticator) bootstrap(ctx context.Context, text string) bool {
	t, err := token.Parse(text, token.NodeUser)
	secrets := a.secrets()
	if err != nil || t.BootstrapID == "" || secrets == nil {
		return false
	}
	s, err := secrets.Get(ctx, "bootstrap-token-"+t.BootstrapID, metav1.GetOptions{})
	return err == nil && bootstrapValid(s, t, a.now())
}

// bootstrapValid is the rule of Kubernetes' own bootstrap authenticator.
func bootstrapValid(s *corev1.Secret, t token.Token, now time.Time) bool {
	if s.Type != corev1.SecretTypeBootstrapToken || s.DeletionTimestamp != nil ||
		!equal(t.BootstrapSecret, string(s.Data["token-secret"])) ||
		string(s.Data["token-id"]) != t.BootstrapID ||
		string(s.Data["usage-bootstrap-authentication"]) != "true" {
		return false
	}
	expiration, ok := s.Data["expiration"]
	if !ok {
		return true
	}
	until, err := time.Parse(time.RFC3339, string(expiration))
	return err == nil && now.Before(until)
}

// certificate accepts a node that is a member already and whose bootstrap token
// is long gone.
func (a authenticator) certificate(r *http.Request) caller {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return caller{}
	}
	cert := r.TLS.PeerCertificates[0]
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: a.clients, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	name, isNode := strings.CutPrefix(cert.Subject.CommonName, "system:node:")
	if err != nil || !isNode || !slices.Contains(cert.Subject.Organization, "system:nodes") {
		return caller{}
	}
	return caller{role: agentRole, node: name}
}

var errUnauthorized = errors.New("not authorized: the token is wrong, expired, or of another kind")
