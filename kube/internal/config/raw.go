package config

import (
	"fmt"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// DefaultFile is where k3s looks for its configuration.
const DefaultFile = "/etc/rancher/k3s/config.yaml"

// Source is what the configuration is read from; tests fill it with values.
type Source struct {
	// Agent selects the keys of `k3s agent`.
	Agent bool
	// Args are the flags after the command word.
	Args []string
	// Getenv reads one environment variable.
	Getenv func(string) string
	// ReadFile reads one file; fs.ErrNotExist for the default file is no error.
	ReadFile func(string) ([]byte, error)
	// Glob lists the drop-ins.
	Glob func(string) ([]string, error)
}

// raw is every key with its values in order; nothing is interpreted yet.
type raw struct {
	values   map[string][]string
	warnings []string
}

func (r *raw) set(origin, name string, values []string, appendTo bool) error {
	k, known := keys[name]
	if !known {
		return fmt.Errorf("%s: unknown key %q: k3s documents no such key%s", origin, name, suggest(name))
	}
	switch k.support {
	case refused:
		return fmt.Errorf("%s: %q is a key of k3s that this stand-in does not have; remove it, or use the official k3s", origin, name)
	case ignored:
		r.warnings = append(r.warnings, fmt.Sprintf("%s: %q is accepted and does nothing in this stand-in", origin, name))
	}
	switch k.kind {
	case boolean:
		if len(values) != 1 {
			return fmt.Errorf("%s: %q wants true or false", origin, name)
		}
		if _, err := strconv.ParseBool(values[0]); err != nil {
			return fmt.Errorf("%s: %q wants true or false, not %q", origin, name, values[0])
		}
	case text:
		if len(values) != 1 {
			return fmt.Errorf("%s: %q wants one value, not %d", origin, name, len(values))
		}
	}
	if k.kind == list && appendTo {
		values = append(r.values[name], values...)
	}
	r.values[name] = values
	return nil
}

// suggest names the documented key that starts alike, if there is one.
func suggest(name string) string {
	var near []string
	for k := range keys {
		if len(name) >= 4 && len(k) >= 4 && strings.EqualFold(strings.ReplaceAll(k, "-", "")[:4], strings.ReplaceAll(name+"----", "_", "")[:4]) {
			near = append(near, k)
		}
	}
	if len(near) == 0 || len(near) > 4 {
		return ""
	}
	sort.Strings(near)
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

func read(s Source) (*raw, error) {
	r := &raw{values: map[string][]string{}}
	flags, err := parseArgs(s.Args)
	if err != nil {
		return nil, err
	}
	file, explicit := DefaultFile, false
	if v := s.Getenv("K3S_CONFIG_FILE"); v != "" {
		file, explicit = v, true
	}
	for _, f := range flags {
		if f.name == "config" {
			file, explicit = f.value, true
		}
	}
	if err := r.readFiles(s, file, explicit); err != nil {
		return nil, err
	}
	for name, k := range keys {
		if v := s.Getenv(k.env); k.env != "" && v != "" {
			if err := r.set("variable "+k.env, name, []string{v}, false); err != nil {
				return nil, err
			}
		}
	}
	for _, f := range flags {
		if f.name == "config" {
			continue
		}
		if err := r.set("flag --"+f.name, f.name, f.values(), true); err != nil {
			return nil, err
		}
	}
	if s.Agent {
		for name := range r.values {
			if !keys[name].agent {
				return nil, fmt.Errorf("%q is a key of `k3s server`; `k3s agent` does not have it", name)
			}
		}
	}
	sort.Strings(r.warnings)
	return r, nil
}

func (r *raw) readFiles(s Source, file string, explicit bool) error {
	files := []string{file}
	dropIns, err := s.Glob(filepath.Join(file+".d", "*.yaml"))
	if err != nil {
		return err
	}
	sort.Strings(dropIns)
	for i, f := range append(files, dropIns...) {
		b, err := s.ReadFile(f)
		if err != nil {
			if i == 0 && !explicit {
				continue
			}
			return fmt.Errorf("configuration file %s: %w", f, err)
		}
		if err := r.readYAML(f, b); err != nil {
			return err
		}
	}
	return nil
}

func (r *raw) readYAML(file string, b []byte) error {
	var m map[string]any
	if err := yaml.UnmarshalStrict(b, &m); err != nil {
		return fmt.Errorf("configuration file %s: %w", file, err)
	}
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		values, err := scalars(m[n])
		if err != nil {
			return fmt.Errorf("configuration file %s: key %q: %w", file, n, err)
		}
		name, appendTo := strings.CutSuffix(n, "+")
		if err := r.set("configuration file "+file, name, values, appendTo); err != nil {
			return err
		}
	}
	return nil
}

func scalars(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return []string{""}, nil
	case string:
		return []string{v}, nil
	case bool:
		return []string{strconv.FormatBool(v)}, nil
	case float64:
		return []string{strconv.FormatFloat(v, 'f', -1, 64)}, nil
	case []any:
		out := []string{}
		for _, e := range v {
			s, err := scalars(e)
			if err != nil {
				return nil, err
			}
			out = append(out, s...)
		}
		return out, nil
	default:
		return nil, fmt.Errorf("a value, or a list of values, is wanted, not %T", v)
	}
}

type flag struct {
	name, value string
	given       bool
}

func (f flag) values() []string {
	if keys[f.name].kind == boolean && !f.given {
		return []string{"true"}
	}
	return []string{f.value}
}

// parseArgs reads --name value, --name=value and k3s's short flags; a boolean
// takes its value only after an equals sign.
func parseArgs(args []string) ([]flag, error) {
	var out []flag
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") || a == "-" || a == "--" {
			return nil, fmt.Errorf("unexpected argument %q: flags look like --name VALUE", a)
		}
		name, value, given := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if long, ok := shortFlags[name]; ok {
			name = long
		}
		if _, known := keys[name]; !known && name != "config" {
			return nil, fmt.Errorf("unknown flag --%s: k3s documents no such flag%s", name, suggest(name))
		}
		if !given && keys[name].kind != boolean {
			if i+1 == len(args) {
				return nil, fmt.Errorf("flag --%s wants a value", name)
			}
			i++
			value, given = args[i], true
		}
		out = append(out, flag{name, value, given})
	}
	return out, nil
}
