// Package token reads and writes the credentials that nodes join with.
//
// The form is the one k3s documents (docs.k3s.io, "token"): a secure token is
// K10<SHA-256 of the CA file, hex>::<user>:<password>, or K10<hash>::<id>.<secret>
// for a bootstrap token; a short token is the password alone and checks nothing.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

const prefix = "K10"

// Users that a token can name.
const (
	ServerUser = "server"
	NodeUser   = "node"
)

// Token is a parsed credential. Either User and Password are set, or
// BootstrapID and BootstrapSecret.
type Token struct {
	// CAHash is the expected SHA-256 of the server's CA file; empty in a short token.
	CAHash                       string
	User, Password               string
	BootstrapID, BootstrapSecret string
}

// kubeadm's form, as k3s uses it: 6 characters, a dot, 16 characters.
var bootstrap = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

// Parse reads any of the three forms; user is assumed for a short one. The
// password is never put into an error.
func Parse(text, user string) (Token, error) {
	var t Token
	cred := text
	if rest, ok := strings.CutPrefix(text, prefix); ok {
		hash, c, ok := strings.Cut(rest, "::")
		if !ok {
			return Token{}, fmt.Errorf("the token begins with %s but has no '::' after the CA hash", prefix)
		}
		if b, err := hex.DecodeString(hash); err != nil || len(b) != sha256.Size {
			return Token{}, fmt.Errorf("the token's CA hash %q is not 64 hex digits", hash)
		}
		t.CAHash, cred = hash, c
	}
	if m := bootstrap.FindStringSubmatch(cred); m != nil {
		t.BootstrapID, t.BootstrapSecret = m[1], m[2]
		return t, nil
	}
	if t.CAHash == "" {
		t.User, t.Password = user, cred
	} else {
		u, p, ok := strings.Cut(cred, ":")
		if !ok || u == "" {
			return Token{}, fmt.Errorf("the token has no 'user:password' after the CA hash")
		}
		t.User, t.Password = u, p
	}
	if t.Password == "" {
		return Token{}, fmt.Errorf("the token has an empty password")
	}
	return t, nil
}

// String is the secure form.
func (t Token) String() string {
	if t.BootstrapID != "" {
		return prefix + t.CAHash + "::" + t.BootstrapID + "." + t.BootstrapSecret
	}
	return prefix + t.CAHash + "::" + t.User + ":" + t.Password
}

// CAHash is the hash of a CA file in PEM, as the secure form carries it.
func CAHash(pem []byte) string {
	sum := sha256.Sum256(pem)
	return hex.EncodeToString(sum[:])
}

// CheckCA compares the CA file that a server gave out with the token's hash.
func (t Token) CheckCA(pem []byte) error {
	if t.CAHash == "" {
		return nil
	}
	if got := CAHash(pem); got != t.CAHash {
		return fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s; the token belongs to another cluster, or someone stands in between", t.CAHash, got)
	}
	return nil
}

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

// NewBootstrap makes a random bootstrap token.
func NewBootstrap() (id, secret string, err error) {
	if id, err = random(6); err != nil {
		return "", "", err
	}
	secret, err = random(16)
	return id, secret, err
}

func random(n int) (string, error) {
	out := make([]byte, 0, n)
	b := make([]byte, 1)
	for len(out) < n {
		if _, err := rand.Read(b); err != nil {
			return "", err
		}
		// 252 is the largest multiple of 36 below 256: no letter is likelier.
		if b[0] < 252 {
			out = append(out, alphabet[int(b[0])%len(alphabet)])
		}
	}
	return string(out), nil
}

// NewPassword makes 32 random hex digits.
func NewPassword() (string, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}
