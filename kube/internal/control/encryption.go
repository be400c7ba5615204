package control

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"holdfast.test/kube/internal/paths"
)

// EnsureEncryption writes the configuration that encrypts Secrets in the
// datastore, once: the key must not change under the data.
func EnsureEncryption(d paths.Dirs) error {
	path := d.Server("cred", "encryption-config.json")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	type m = map[string]any
	b, err := json.Marshal(m{
		"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
		"resources": []m{{
			"resources": []string{"secrets"},
			"providers": []m{
				{"aescbc": m{"keys": []m{{"name": "aescbckey", "secret": base64.StdEncoding.EncodeToString(key)}}}},
				{"identity": m{}},
			},
		}},
	})
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
