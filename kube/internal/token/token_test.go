package token

import (
	"strings"
	"testing"
)

func TestTheThreeForms(t *testing.T) {
	ca := []byte("-----BEGIN CERTIFICATE-----\n")
	hash := CAHash(ca)
	for name, c := range map[string]struct {
		text string
		want Token
	}{
		"server":    {"K10" + hash + "::server:pass:word", Token{CAHash: hash, User: "server", Password: "pass:word"}},
		"bootstrap": {"K10" + hash + "::abcdef.0123456789abcdef", Token{CAHash: hash, BootstrapID: "abcdef", BootstrapSecret: "0123456789abcdef"}},
		"short":     {"pass", Token{User: "node", Password: "pass"}},
		"short id":  {"abcdef.0123456789abcdef", Token{BootstrapID: "abcdef", BootstrapSecret: "0123456789abcdef"}},
	} {
		got, err := Parse(c.text, NodeUser)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
		if c.want.CAHash != "" && got.String() != c.text {
			t.Errorf("%s: written as %s", name, got)
		}
		if err := got.CheckCA(ca); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := got.CheckCA([]byte("another")); (err != nil) != (c.want.CAHash != "") {
			t.Errorf("%s: another CA: %v", name, err)
		}
	}
}

func TestBadTokensAreRefusedWithoutTellingThePassword(t *testing.T) {
	for _, text := range []string{"", "K10abc::server:hunter2", "K10", "K10" + strings.Repeat("z", 64) + "::server:hunter2",
		"K10" + strings.Repeat("a", 64) + "::hunter2", "K10" + strings.Repeat("a", 64) + "::server:"} {
		_, err := Parse(text, NodeUser)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestNewBootstrapTokensParse(t *testing.T) {
	id, secret, err := NewBootstrap()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(id+"."+secret, NodeUser); err != nil || got.BootstrapID != id {
		t.Errorf("%+v %v", got, err)
	}
}
