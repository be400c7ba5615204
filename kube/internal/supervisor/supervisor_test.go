package supervisor

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/control"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/pki"
)

func fixture(t *testing.T) *Server {
	t.Helper()
	dir := t.TempDir()
	ca := func(name string) *pki.CA {
		c, err := pki.EnsureCA(filepath.Join(dir, "server", "tls", name), name, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	cas := &control.CAs{Server: ca("server-ca"), Client: ca("client-ca")}
	s := New(&config.Config{}, paths.Dirs{Data: dir}, cas, control.Passwords{Server: "sss", Agent: "aaa"})
	client := fake.NewClientset(
		bootstrapSecret("live00", time.Now().Add(time.Hour)),
		bootstrapSecret("dead00", time.Now().Add(-time.Hour)),
	)
	s.SetSecrets(client.CoreV1().Secrets("kube-system"))
	return s
}

func bootstrapSecret(id string, until time.Time) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id, Namespace: "kube-system"},
		Type:       corev1.SecretTypeBootstrapToken,
		Data: map[string][]byte{
			"token-id": []byte(id), "token-secret": []byte("0123456789abcdef"),
			"usage-bootstrap-authentication": []byte("true"),
			"expiration":                     []byte(until.Format(time.RFC3339)),
		},
	}
}

func ask(s *Server, method, path string, body []byte, edit func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "https://server:6443"+path, bytes.NewReader(body))
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	s.mux().ServeHTTP(w, r)
	return w
}

func TestTheThreeTokensAreKeptApart(t *testing.T) {
	s := fixture(t)
	basic := func(u, p string) func(*http.Request) { return func(r *http.Request) { r.SetBasicAuth(u, p) } }
	bearer := func(b string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+b) }
	}
	for name, c := range map[string]struct {
		edit             func(*http.Request)
		agent, bootstrap int
	}{
		"nobody":           {nil, 401, 401},
		"agent":            {basic("node", "aaa"), 200, 403},
		"server":           {basic("server", "sss"), 200, 200},
		"agent as server":  {basic("server", "aaa"), 401, 401},
		"server as agent":  {basic("node", "sss"), 401, 401},
		"wrong":            {basic("server", "x"), 401, 401},
		"empty":            {basic("server", ""), 401, 401},
		"bootstrap":        {bearer("live00.0123456789abcdef"), 200, 403},
		"expired":          {bearer("dead00.0123456789abcdef"), 401, 401},
		"another secret":   {bearer("live00.fedcba9876543210"), 401, 401},
		"agent as bearer":  {bearer("aaa"), 401, 401},
		"unknown id":       {bearer("none00.0123456789abcdef"), 401, 401},
		"server as bearer": {bearer("sss"), 401, 401},
	} {
		if got := ask(s, "GET", "/v1-k3s/config", nil, c.edit).Code; got != c.agent {
			t.Errorf("%s: config %d, want %d", name, got, c.agent)
		}
		if got := ask(s, "GET", "/v1-k3s/server-bootstrap", nil, c.edit).Code; got != c.bootstrap {
			t.Errorf("%s: server-bootstrap %d, want %d", name, got, c.bootstrap)
		}
	}
}

func TestANodeGetsACertificateOnlyWithItsOwnPassword(t *testing.T) {
	s := fixture(t)
	csr, err := pki.Request(filepath.Join(t.TempDir(), "kubelet.key"), pki.Leaf{CommonName: "x"})
	if err != nil {
		t.Fatal(err)
	}
	as := func(node, password string) *httptest.ResponseRecorder {
		return ask(s, "POST", "/v1-k3s/client-kubelet.crt", csr, func(r *http.Request) {
			r.SetBasicAuth("node", "aaa")
			r.Header.Set("k3s-Node-Name", node)
			r.Header.Set("k3s-Node-Password", password)
			r.Header.Set("k3s-Node-IP", "10.0.0.1")
		})
	}
	first := as("north", "one")
	if first.Code != 200 {
		t.Fatal(first.Code, first.Body)
	}
	cert, err := pki.ParseCert(first.Body.Bytes())
	if err != nil || cert.Subject.CommonName != "system:node:north" {
		t.Fatal(cert, err)
	}
	if w := as("north", "one"); w.Code != 200 {
		t.Error("the same node again", w.Code)
	}
	if w := as("north", "two"); w.Code != 403 || !bytes.Contains(w.Body.Bytes(), []byte("Node password rejected")) {
		t.Error("another node of that name", w.Code, w.Body)
	}
	// A member proves itself by its certificate when its token is gone, but
	// only in its own name.
	for node, want := range map[string]int{"north": 200, "south": 403} {
		w := ask(s, "POST", "/v1-k3s/client-kubelet.crt", csr, func(r *http.Request) {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
			r.Header.Set("k3s-Node-Name", node)
			r.Header.Set("k3s-Node-Password", "one")
			r.Header.Set("k3s-Node-IP", "10.0.0.1")
		})
		if w.Code != want {
			t.Errorf("certificate of north as %s: %d, want %d", node, w.Code, want)
		}
	}
}

func TestTheRestGoesToTheAPIServerOnceItIsThere(t *testing.T) {
	s := fixture(t)
	if got := ask(s, "GET", "/api/v1/nodes", nil, nil).Code; got != 503 {
		t.Errorf("before: %d", got)
	}
	s.SetAPI(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) }))
	if got := ask(s, "GET", "/api/v1/nodes", nil, nil).Code; got != 418 {
		t.Errorf("after: %d", got)
	}
	if w := ask(s, "GET", "/cacerts", nil, nil); w.Code != 200 || !bytes.Equal(w.Body.Bytes(), s.cas.Server.PEM) {
		t.Errorf("/cacerts: %d", w.Code)
	}
}
