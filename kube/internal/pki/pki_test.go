package pki

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var day0 = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func TestACertificateIsRenewedOnlyInItsLast120Days(t *testing.T) {
	dir := t.TempDir()
	ca, err := EnsureCA(filepath.Join(dir, "server-ca"), "k3s-server-ca", day0)
	if err != nil {
		t.Fatal(err)
	}
	leaf := Leaf{CommonName: "kubernetes", DNSNames: []string{"localhost"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Server: true}
	base := filepath.Join(dir, "serving")
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{
		{0, true},
		{time.Hour, false},
		{LeafLife - RenewBefore - 2*time.Minute, false},
		{LeafLife - RenewBefore + time.Hour, true},
		{LeafLife, false},
	} {
		made, err := ca.Ensure(base, leaf, day0.Add(step.after))
		if err != nil || made != step.want {
			t.Errorf("after %v: made %v, want %v (%v)", step.after, made, step.want, err)
		}
	}
}

func TestACertificateThatDoesNotFitIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	ca, err := EnsureCA(filepath.Join(dir, "ca"), "ca", day0)
	if err != nil {
		t.Fatal(err)
	}
	leaf := Leaf{CommonName: "a", Organization: []string{"o"}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Server: true}
	base := filepath.Join(dir, "leaf")
	if _, err := ca.Ensure(base, leaf, day0); err != nil {
		t.Fatal(err)
	}
	moved := leaf
	moved.IPs = []netip.Addr{netip.MustParseAddr("10.0.0.2")}
	if made, err := ca.Ensure(base, moved, day0); err != nil || !made {
		t.Error("a new address", made, err)
	}
	if err := os.Remove(base + ".key"); err != nil {
		t.Fatal(err)
	}
	if made, err := ca.Ensure(base, moved, day0); err != nil || !made {
		t.Error("a new key", made, err)
	}
	other, err := EnsureCA(filepath.Join(dir, "other"), "other", day0)
	if err != nil {
		t.Fatal(err)
	}
	if made, err := other.Ensure(base, moved, day0); err != nil || !made {
		t.Error("another CA", made, err)
	}
}

func TestACAIsKept(t *testing.T) {
	base := filepath.Join(t.TempDir(), "tls", "ca")
	a, err := EnsureCA(base, "ca", day0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := EnsureCA(base, "ca", day0.Add(time.Hour))
	if err != nil || string(a.PEM) != string(b.PEM) {
		t.Error("made twice", err)
	}
	if err := os.WriteFile(base+".crt", []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureCA(base, "ca", day0); err == nil {
		t.Error("a damaged CA was silently replaced")
	}
}
