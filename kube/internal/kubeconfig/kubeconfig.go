// Package kubeconfig writes kubeconfig files.
package kubeconfig

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Files names what a kubeconfig is made of.
type Files struct {
	// Server is the API server's URL.
	Server string
	// CA, Cert and Key are paths of PEM files.
	CA, Cert, Key string
}

// Write puts the kubeconfig at path; embed copies the certificates into it, so
// that the file can be carried away.
func (f Files) Write(path string, mode fs.FileMode, embed bool) error {
	cluster := &api.Cluster{Server: f.Server}
	user := &api.AuthInfo{}
	if embed {
		for _, m := range []struct {
			to   *[]byte
			from string
		}{{&cluster.CertificateAuthorityData, f.CA}, {&user.ClientCertificateData, f.Cert}, {&user.ClientKeyData, f.Key}} {
			b, err := os.ReadFile(m.from)
			if err != nil {
				return err
			}
			*m.to = b
		}
	} else {
		cluster.CertificateAuthority, user.ClientCertificate, user.ClientKey = f.CA, f.Cert, f.Key
	}
	// k3s calls all three "default".
	c := api.Config{
		Clusters:       map[string]*api.Cluster{"default": cluster},
		AuthInfos:      map[string]*api.AuthInfo{"default": user},
		Contexts:       map[string]*api.Context{"default": {Cluster: "default", AuthInfo: "default"}},
		CurrentContext: "default",
	}
	b, err := clientcmd.Write(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	// The mode asked for counts, whatever the umask.
	if err := os.Chmod(tmp, mode); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return os.Rename(tmp, path)
}
