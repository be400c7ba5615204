// Package nodepw checks that a node name is used by the node that first used
// it: k3s's node password (docs.k3s.io, "Node Registration").
//
// The node keeps a random password in /etc/rancher/node/password; the cluster
// keeps a salted hash in the Secret <node>.node-password.k3s in kube-system.
package nodepw

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"holdfast.test/kube/internal/token"
)

// File is where the node keeps its password.
const File = "/etc/rancher/node/password"

// ErrRejected is k3s's own wording, which people search for.
var ErrRejected = errors.New("Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag") //nolint:staticcheck

// Ensure reads the password at path, or makes one.
func Ensure(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if p := strings.TrimSpace(string(b)); p != "" {
			return p, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("node password: %w", err)
	}
	p, err := token.NewPassword()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("node password: %w", err)
	}
	if err := os.WriteFile(path, []byte(p+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("node password: %w", err)
	}
	return p, nil
}

// Hash is "1:<salt>:<SHA-256 of salt and password>", base64. The password is
// 128 random bits, which a slow hash would not protect any better.
func Hash(password string) (string, error) {
	salt := make([]byte, 8)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	return hashWith(salt, password), nil
}

func hashWith(salt []byte, password string) string {
	sum := sha256.Sum256(append(append([]byte{}, salt...), password...))
	return "1:" + base64.StdEncoding.EncodeToString(salt) + ":" + base64.StdEncoding.EncodeToString(sum[:])
}

// Verify says whether password belongs to hash.
func Verify(hash, password string) bool {
	parts := strings.Split(hash, ":")
	if len(parts) != 3 || parts[0] != "1" {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(hashWith(salt, password)), []byte(hash)) == 1
}

func secretName(node string) string { return strings.ToLower(node + ".node-password.k3s") }

// Check lets a node in that is new or knows its password, and gives
// ErrRejected to one that does not.
func Check(ctx context.Context, secrets clientcorev1.SecretInterface, node, password string) error {
	s, err := secrets.Get(ctx, secretName(node), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		hash, err := Hash(password)
		if err != nil {
			return err
		}
		yes := true
		_, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: secretName(node)},
			Immutable:  &yes,
			Data:       map[string][]byte{"hash": []byte(hash)},
		}, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		// Two nodes of one name raced: the one that came second is checked.
		if s, err = secrets.Get(ctx, secretName(node), metav1.GetOptions{}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if !Verify(string(s.Data["hash"]), password) {
		return ErrRejected
	}
	return nil
}
