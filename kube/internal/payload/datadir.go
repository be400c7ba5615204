package payload

import (
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// DefaultDataDir is where k3s keeps its data when root runs it.
const DefaultDataDir = "/var/lib/rancher/k3s"

// DataDir finds the data directory before anything else is parsed: the
// launcher must unpack before the components can read their configuration.
// Order: --data-dir or -d, K3S_DATA_DIR, the configuration file, the default
// of the user.
func DataDir(args []string, getenv func(string) string, readFile func(string) ([]byte, error), root bool, home string) string {
	file := "/etc/rancher/k3s/config.yaml"
	if v := getenv("K3S_CONFIG_FILE"); v != "" {
		file = v
	}
	if v := flagValue(args, "config", "c"); v != "" {
		file = v
	}
	if v := flagValue(args, "data-dir", "d"); v != "" {
		return v
	}
	if v := getenv("K3S_DATA_DIR"); v != "" {
		return v
	}
	if !root {
		return filepath.Join(home, ".rancher", "k3s")
	}
	if b, err := readFile(file); err == nil {
		var c struct {
			DataDir string `json:"data-dir"`
		}
		// A file that does not parse is reported by the command itself.
		if yaml.Unmarshal(b, &c) == nil && c.DataDir != "" {
			return c.DataDir
		}
	}
	return DefaultDataDir
}

func flagValue(args []string, long, short string) string {
	// Arguments of kubectl are not k3s's own.
	if len(args) > 0 && (args[0] == "kubectl") {
		return ""
	}
	for i, a := range args {
		for _, name := range []string{"--" + long, "-" + short} {
			if v, ok := strings.CutPrefix(a, name+"="); ok {
				return v
			}
			if a == name && i+1 < len(args) {
				return args[i+1]
			}
		}
	}
	return ""
}

// Exe is the path of the components' binary below an unpacked directory.
func Exe(dir string) string { return filepath.Join(dir, "bin", "k3s") }

// Self opens the running file.
func Self() (*os.File, int64, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}
