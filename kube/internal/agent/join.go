// Package agent is the node's half: it joins through a supervisor and runs
// containerd, kubelet and kube-proxy.
package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/pki"
	"holdfast.test/kube/internal/supervisor"
	"holdfast.test/kube/internal/token"
)

// Joiner fetches what a node needs from a supervisor.
type Joiner struct {
	// Server is the supervisor's base URL, https://ADDRESS:6443.
	Server   string
	Token    token.Token
	Dirs     paths.Dirs
	NodeName string
	Password string
	NodeIPs  []netip.Addr
	client   *http.Client
}

// errRefused marks answers that no retry mends.
var errRefused = errors.New("refused by the server")

// Join repeats until the supervisor answers or refuses for good.
func (j *Joiner) Join(ctx context.Context, say func(string)) (*supervisor.ClusterConfig, error) {
	last := ""
	for wait := 250 * time.Millisecond; ; wait = min(wait*2, 5*time.Second) {
		c, err := j.once(ctx)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, errRefused) || ctx.Err() != nil {
			return nil, err
		}
		if err.Error() != last {
			last = err.Error()
			say("waiting for " + j.Server + ": " + last)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (j *Joiner) once(ctx context.Context) (*supervisor.ClusterConfig, error) {
	ca, err := j.cacerts(ctx)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%w: /cacerts holds no certificate", errRefused)
	}
	tlsConfig := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	// A member goes on being let in when its bootstrap token has expired.
	if cert, err := tls.LoadX509KeyPair(j.Dirs.Agent("client-kubelet.crt"), j.Dirs.Agent("client-kubelet.key")); err == nil && j.Token.BootstrapID != "" {
		tlsConfig.Certificates = []tls.Certificate{cert}
	}
	j.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: tlsConfig}}
	defer j.client.CloseIdleConnections()

	var c supervisor.ClusterConfig
	b, err := j.get(ctx, "config")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("the server's configuration: %w", err)
	}
	if err := os.MkdirAll(j.Dirs.Agent(), 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{"client-ca.crt", "server-ca.crt"} {
		if b, err = j.get(ctx, name); err != nil {
			return nil, err
		}
		if err := os.WriteFile(j.Dirs.Agent(name), b, 0o644); err != nil {
			return nil, err
		}
	}
	// Asked for at every start: this is where the server checks the password,
	// and where certificates are renewed.
	for _, name := range []string{"client-kubelet", "serving-kubelet", "client-kube-proxy"} {
		if err := j.certificate(ctx, name); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

// cacerts fetches the CA over a connection that proves nothing yet; the hash in
// the token does.
func (j *Joiner) cacerts(ctx context.Context) ([]byte, error) {
	blind := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec
	}}
	defer blind.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, j.Server+"/cacerts", nil)
	if err != nil {
		return nil, err
	}
	resp, err := blind.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/cacerts: %s", resp.Status)
	}
	if err := j.Token.CheckCA(b); err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return b, nil
}

func (j *Joiner) get(ctx context.Context, name string) ([]byte, error) {
	return j.ask(ctx, http.MethodGet, name, nil)
}

func (j *Joiner) certificate(ctx context.Context, name string) error {
	csr, err := pki.Request(j.Dirs.Agent(name+".key"), pki.Leaf{CommonName: j.NodeName})
	if err != nil {
		return err
	}
	b, err := j.ask(ctx, http.MethodPost, name+".crt", csr)
	if err != nil {
		return err
	}
	return os.WriteFile(j.Dirs.Agent(name+".crt"), b, 0o644)
}

func (j *Joiner) ask(ctx context.Context, method, name string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, j.Server+"/v1-k3s/"+name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	member := len(j.client.Transport.(*http.Transport).TLSClientConfig.Certificates) > 0
	switch {
	case member:
	case j.Token.BootstrapID != "":
		r.Header.Set("Authorization", "Bearer "+j.Token.BootstrapID+"."+j.Token.BootstrapSecret)
	default:
		r.SetBasicAuth(j.Token.User, j.Token.Password)
	}
	ips := make([]string, len(j.NodeIPs))
	for i, ip := range j.NodeIPs {
		ips[i] = ip.String()
	}
	r.Header.Set("k3s-Node-Name", j.NodeName)
	r.Header.Set("k3s-Node-Password", j.Password)
	r.Header.Set("k3s-Node-IP", strings.Join(ips, ","))
	resp, err := j.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	err = fmt.Errorf("%s: %s: %s", name, resp.Status, strings.TrimSpace(string(b)))
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return nil, err
}
