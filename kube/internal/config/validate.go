package config

import (
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// validator keeps the first error, so that the fields can be read in a row.
type validator struct {
	r   *raw
	s   Source
	err error
}

// secret reads NAME, or the file that NAME-file names; not both.
func (v *validator) secret(name string) string {
	value, file := v.r.text(name, ""), v.r.text(name+"-file", "")
	if file == "" {
		return value
	}
	if value != "" {
		v.fail(name+"-file", file, "and "+name+" are both given; keep one")
		return ""
	}
	b, err := v.s.ReadFile(file)
	if err != nil {
		v.fail(name+"-file", file, fmt.Sprintf("cannot be read: %v", err))
		return ""
	}
	if value = strings.TrimSpace(string(b)); value == "" {
		v.fail(name+"-file", file, "is empty")
	}
	return value
}

func (v *validator) server() *url.URL {
	text := v.r.text("server", "")
	if text == "" {
		if v.s.Agent {
			v.fail("server", "", "is missing: an agent needs the URL of a server, https://ADDRESS:6443")
		}
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		v.fail("server", text, "is not of the form https://ADDRESS:6443")
		return nil
	}
	if u.Port() == "" {
		u.Host += ":6443"
	}
	if v.r.text("token", "") == "" && v.r.text("token-file", "") == "" {
		v.fail("server", text, "is given without token or token-file: joining needs one")
	}
	return u
}

func (v *validator) addrs(name string) []netip.Addr {
	var out []netip.Addr
	for _, text := range v.r.list(name, "") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			v.fail(name, text, "is not an IP address")
			return nil
		}
		out = append(out, a)
	}
	return out
}

func (v *validator) addr(name string) netip.Addr {
	text := v.r.text(name, "")
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		v.fail(name, text, "is not an IP address")
	}
	return a
}

func (v *validator) prefixes(name, fallback string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range v.r.list(name, fallback) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			v.fail(name, text, "is not a network such as "+fallback)
			return nil
		}
		out = append(out, p.Masked())
	}
	if len(out) > 2 || (len(out) == 2 && out[0].Addr().Is4() == out[1].Addr().Is4()) {
		v.fail(name, strings.Join(v.r.list(name, ""), ","), "wants one network, or one of each family")
	}
	return out
}

func (v *validator) number(name string, fallback, low, high int) int {
	text := v.r.text(name, "")
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		v.fail(name, text, fmt.Sprintf("is not a number from %d to %d", low, high))
	}
	return n
}

func (v *validator) mode(name string, fallback fs.FileMode) fs.FileMode {
	text := v.r.text(name, "")
	if text == "" {
		return fallback
	}
	// YAML reads 0644 as a decimal number unless it is quoted; k3s says to quote.
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 {
		v.fail(name, text, `is not an octal file mode in quotes, such as "0644"`)
	}
	return fs.FileMode(n)
}

func (v *validator) choice(name, fallback string, allowed ...string) {
	if text := v.r.text(name, fallback); !slices.Contains(allowed, text) {
		v.fail(name, text, "is not one of "+strings.Join(allowed, ", "))
	}
}

func (v *validator) disable() []string {
	out := v.r.list("disable", "")
	for _, d := range out {
		if !slices.Contains(packaged, d) {
			v.fail("disable", d, "is not one of "+strings.Join(packaged, ", "))
		}
	}
	return out
}

// cluster checks what must fit together.
func (v *validator) cluster(c *Config) {
	for _, a := range c.ClusterCIDRs {
		for _, b := range c.ServiceCIDRs {
			if a.Overlaps(b) {
				v.fail("cluster-cidr", a.String(), "overlaps service-cidr "+b.String())
			}
		}
	}
	for _, ip := range c.NodeIPs {
		for _, p := range slices.Concat(c.ClusterCIDRs, c.ServiceCIDRs) {
			if p.Contains(ip) {
				v.fail("node-ip", ip.String(), "lies in "+p.String()+", which pods or services use")
			}
		}
	}
	if v.err != nil || c.Agent {
		return
	}
	if len(c.ClusterDNS) == 0 {
		for _, p := range c.ServiceCIDRs {
			c.ClusterDNS = append(c.ClusterDNS, nth(p, 10))
		}
	}
	for _, ip := range c.ClusterDNS {
		if !slices.ContainsFunc(c.ServiceCIDRs, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			v.fail("cluster-dns", ip.String(), "does not lie in service-cidr")
		}
	}
}

// nth is the address n steps above a network's own.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// ServiceIP is the address of the `kubernetes` service: the first of the range.
func (c *Config) ServiceIP(i int) netip.Addr { return nth(c.ServiceCIDRs[i], 1) }

// NotPackaged are the components that k3s would deploy here and the stand-in
// does not have.
func (c *Config) NotPackaged() []string {
	var out []string
	for _, p := range packaged {
		if !slices.Contains(c.Disable, p) {
			out = append(out, p)
		}
	}
	return out
}
