package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/token"
)

// Passwords admit nodes: servers with one, agents with the other.
type Passwords struct {
	Server, Agent string
}

// EnsureTokens reads or makes the passwords and writes <data-dir>/server/token,
// node-token (a link to it) and agent-token.
func EnsureTokens(c *config.Config, d paths.Dirs, ca []byte) (Passwords, error) {
	server, err := ensureToken(d.Server("token"), c.Token, token.ServerUser, ca)
	if err != nil {
		return Passwords{}, err
	}
	if err := relink("token", d.Server("node-token")); err != nil {
		return Passwords{}, err
	}
	p := Passwords{Server: server, Agent: server}
	agentFile := d.Server("agent-token")
	if c.AgentToken == "" {
		// Without a token of their own, agents join with the server's, as in k3s.
		return p, relink("token", agentFile)
	}
	if st, err := os.Lstat(agentFile); err == nil && st.Mode()&fs.ModeSymlink != 0 {
		if err := os.Remove(agentFile); err != nil {
			return Passwords{}, err
		}
	}
	p.Agent, err = ensureToken(agentFile, c.AgentToken, token.NodeUser, ca)
	if err == nil && p.Agent == p.Server {
		err = errors.New("agent-token and token are the same: an agent could then join as a server")
	}
	return p, err
}

func ensureToken(path, given, user string, ca []byte) (string, error) {
	var want token.Token
	if given != "" {
		t, err := token.Parse(given, user)
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		if t.BootstrapID != "" || t.User != user {
			return "", fmt.Errorf("token: a %s token is wanted here, not one of another kind", user)
		}
		if err := t.CheckCA(ca); err != nil {
			return "", err
		}
		want = t
	}
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		have, err := token.Parse(strings.TrimSpace(string(b)), user)
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		if want.Password == "" || want.Password == have.Password {
			return have.Password, nil
		}
		if user == token.ServerUser {
			return "", fmt.Errorf("this cluster was started with another token than the one given now; give the old one, which is in %s", path)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if want.Password == "" {
		if want.Password, err = token.NewPassword(); err != nil {
			return "", err
		}
	}
	want.User, want.CAHash = user, token.CAHash(ca)
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(want.String()+"\n"), 0o600); err != nil {
		return "", err
	}
	return want.Password, os.Rename(tmp, path)
}

func relink(target, path string) error {
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}
