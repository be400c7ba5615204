package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctls that k3s sets itself.
var sysctls = map[string]string{
	"net/ipv4/conf/all/forwarding":        "1",
	"net/ipv4/conf/default/forwarding":    "1",
	"net/ipv6/conf/all/forwarding":        "1",
	"net/ipv6/conf/default/forwarding":    "1",
	"net/bridge/bridge-nf-call-iptables":  "1",
	"net/bridge/bridge-nf-call-ip6tables": "1",
}

// SetSysctls turns forwarding on and shows bridged packets to iptables. A value
// that is right already is not written; one that is missing is reported.
func SetSysctls(say func(string)) {
	for name, value := range sysctls {
		path := filepath.Join("/proc/sys", name)
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == value {
			continue
		}
		err := os.WriteFile(path, []byte(value), 0o644)
		if errors.Is(err, fs.ErrNotExist) && strings.Contains(name, "ipv6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			say("setting " + name + ": " + err.Error() + " (is the module loaded? see kube/README.md)")
		}
	}
}
