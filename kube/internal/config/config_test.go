package config

import (
	"io/fs"
	"strings"
	"testing"
)

func source(agent bool, yaml string, args ...string) Source {
	return Source{
		Agent: agent, Args: args,
		Getenv: func(string) string { return "" },
		ReadFile: func(path string) ([]byte, error) {
			switch path {
			case DefaultFile:
				return []byte(yaml), nil
			case "/secret":
				return []byte("s3cret\n"), nil
			}
			return nil, fs.ErrNotExist
		},
		Glob: func(string) ([]string, error) { return nil, nil },
	}
}

func TestAServerAsTheAgentOfHoldfastConfiguresIt(t *testing.T) {
	c, err := Load(source(false, `
node-name: north
node-ip: 100.64.0.2
flannel-iface: hf0
token-file: /secret
bind-address: 100.64.0.2
advertise-address: 100.64.0.2
tls-san: [north.demo.internal, 100.64.0.2]
cluster-cidr: 10.50.0.0/16
service-cidr: 10.51.0.0/16
cluster-init: true
disable: [traefik, servicelb]
write-kubeconfig-mode: "0640"
node-label:
  - holdfast.dev/site=home
prefer-bundled-bin: true
kubelet-arg: [max-pods=20]
`, "--kubelet-arg", "v=2", "--node-name=south"))
	if err != nil {
		t.Fatal(err)
	}
	if c.NodeName != "south" || c.Token != "s3cret" || c.KubeconfigMode != 0o640 || !c.ClusterInit {
		t.Errorf("%+v", c)
	}
	if got := c.ClusterDNS[0].String(); got != "10.51.0.10" {
		t.Errorf("cluster DNS %s", got)
	}
	if got := strings.Join(c.KubeletArgs, " "); got != "max-pods=20 v=2" {
		t.Errorf("kubelet arguments %q", got)
	}
	if got := c.ServiceIP(0).String(); got != "10.51.0.1" {
		t.Errorf("service address %s", got)
	}
	if got := strings.Join(c.NotPackaged(), " "); strings.Contains(got, "traefik") || !strings.Contains(got, "coredns") {
		t.Errorf("not packaged %q", got)
	}
}

func TestBadConfigurationIsRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		yaml string
		args []string
		want string
	}{
		"unknown key":            {"node-nmae: x", nil, `unknown key "node-nmae"`},
		"unknown flag":           {"", []string{"--colour", "red"}, "unknown flag --colour"},
		"unsupported key":        {"datastore-endpoint: mysql://x", nil, "datastore-endpoint"},
		"not yaml":               {"a: [", nil, DefaultFile},
		"duplicate key":          {"token: a\ntoken: b", nil, "token"},
		"wrong type":             {"cluster-init: perhaps", nil, `wants true or false, not "perhaps"`},
		"nested":                 {"token: {a: b}", nil, "token"},
		"address":                {"node-ip: 10.0.0.300", nil, `"10.0.0.300" is not an IP address`},
		"overlap":                {"cluster-cidr: 10.0.0.0/8", nil, "overlaps service-cidr"},
		"node in pods":           {"node-ip: 10.42.0.9", nil, "which pods or services use"},
		"dns":                    {"cluster-dns: 192.0.2.1", nil, "does not lie in service-cidr"},
		"mode":                   {`write-kubeconfig-mode: "rw"`, nil, "octal"},
		"token twice":            {"token: x\ntoken-file: /secret", nil, "keep one"},
		"token file missing":     {"token-file: /nowhere", nil, "/nowhere"},
		"server without a token": {"server: https://a:6443", nil, "joining needs one"},
		"server not https":       {"server: http://a\ntoken: x", nil, "https://ADDRESS:6443"},
		"disable":                {"disable: kubelet", nil, "is not one of"},
		"backend":                {"flannel-backend: ipip", nil, "flannel-backend"},
		"node name":              {"node-name: North_1", nil, "North_1"},
		"no value":               {"", []string{"--token"}, "wants a value"},
		"stray word":             {"", []string{"start"}, "unexpected argument"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(source(false, c.yaml, c.args...))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an error with %q, have %v", c.want, err)
			}
		})
	}
}

func TestAnAgentKnowsItsOwnKeysOnly(t *testing.T) {
	if _, err := Load(source(true, "server: https://a\ntoken: x\ncluster-init: true")); err == nil || !strings.Contains(err.Error(), "cluster-init") {
		t.Errorf("%v", err)
	}
	c, err := Load(source(true, "server: https://a\ntoken: x"))
	if err != nil || c.Server.Host != "a:6443" {
		t.Errorf("%+v %v", c, err)
	}
}

func TestAnIgnoredKeyIsNamedInAWarning(t *testing.T) {
	c, err := Load(source(false, "embedded-registry: true"))
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "embedded-registry") {
		t.Errorf("%+v %v", c, err)
	}
}
