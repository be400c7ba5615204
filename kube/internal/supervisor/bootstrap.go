package supervisor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
)

// bootstrapFiles are the keys that every server of a cluster shares, by their
// place below <data-dir>/server.
var bootstrapFiles = []string{
	"tls/server-ca.crt", "tls/server-ca.key", "tls/client-ca.crt", "tls/client-ca.key",
	"tls/request-header-ca.crt", "tls/request-header-ca.key",
	"tls/etcd/peer-ca.crt", "tls/etcd/peer-ca.key", "tls/service.key", "cred/encryption-config.json",
}

// bootstrap hands the cluster's keys to another server: whoever holds the
// server token is the cluster's administrator.
func (s *Server) bootstrap(w http.ResponseWriter, _ *http.Request, _ caller) error {
	out := map[string][]byte{}
	for _, name := range bootstrapFiles {
		b, err := os.ReadFile(s.dirs.Server(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		out[name] = b
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(out)
}
