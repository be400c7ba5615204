// Package pki makes and renews the certificates of a cluster, laid out as k3s
// lays them out in <data-dir>/server/tls and <data-dir>/agent.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Lifetimes as k3s documents them (docs.k3s.io, "certificate").
const (
	CALife      = 10 * 365 * 24 * time.Hour
	LeafLife    = 365 * 24 * time.Hour
	RenewBefore = 120 * 24 * time.Hour
)

// CA signs certificates.
type CA struct {
	Cert *x509.Certificate
	PEM  []byte
	key  crypto.Signer
}

// Leaf asks for one certificate.
type Leaf struct {
	CommonName   string
	Organization []string
	DNSNames     []string
	IPs          []netip.Addr
	Server       bool
	Client       bool
}

// EnsureCA reads the CA at base.crt and base.key, or makes one with that name.
func EnsureCA(base, name string, now time.Time) (*CA, error) {
	if ca, err := LoadCA(base); !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-time.Minute).UTC(),
		NotAfter:              now.Add(CALife).UTC(),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := writeKey(base+".key", key); err != nil {
		return nil, err
	}
	if err := writeFile(base+".crt", certPEM(der), 0o644); err != nil {
		return nil, err
	}
	return LoadCA(base)
}

// LoadCA reads base.crt and base.key.
func LoadCA(base string) (*CA, error) {
	b, err := os.ReadFile(base + ".crt")
	if err != nil {
		return nil, err
	}
	cert, err := ParseCert(b)
	if err != nil {
		return nil, fmt.Errorf("%s.crt: %w", base, err)
	}
	key, err := loadKey(base + ".key")
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, PEM: b, key: key}, nil
}

// Ensure makes sure that base.crt and base.key hold a certificate for leaf that
// need not be renewed, and says whether it made one. The key is kept. It is
// called at a start only: nothing renews while the components run.
func (ca *CA) Ensure(base string, leaf Leaf, now time.Time) (bool, error) {
	key, err := ensureKey(base + ".key")
	if err != nil {
		return false, err
	}
	if b, err := os.ReadFile(base + ".crt"); err == nil {
		if cert, err := ParseCert(b); err == nil && !ca.Stale(cert, key.Public(), leaf, now) {
			return false, nil
		}
	}
	b, err := ca.Sign(leaf, key.Public(), now)
	if err != nil {
		return false, err
	}
	return true, writeFile(base+".crt", b, 0o644)
}

// Stale decides whether a certificate must be made anew: it ends within
// RenewBefore, belongs to another key or CA, or lacks something leaf asks for.
func (ca *CA) Stale(cert *x509.Certificate, key crypto.PublicKey, leaf Leaf, now time.Time) bool {
	if now.Add(RenewBefore).After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return true
	}
	if k, ok := key.(*ecdsa.PublicKey); !ok || !k.Equal(cert.PublicKey) {
		return true
	}
	if cert.CheckSignatureFrom(ca.Cert) != nil {
		return true
	}
	if cert.Subject.CommonName != leaf.CommonName || !slices.Equal(cert.Subject.Organization, leaf.Organization) {
		return true
	}
	for _, name := range leaf.DNSNames {
		if !slices.Contains(cert.DNSNames, name) {
			return true
		}
	}
	for _, ip := range leaf.IPs {
		if cert.VerifyHostname(ip.Unmap().String()) != nil {
			return true
		}
	}
	return false
}

// Sign makes a certificate for a public key and returns it in PEM, followed by
// the CA.
func (ca *CA) Sign(leaf Leaf, key crypto.PublicKey, now time.Time) ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organization},
		NotBefore:    now.Add(-time.Minute).UTC(),
		NotAfter:     now.Add(LeafLife).UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		DNSNames:     leaf.DNSNames,
	}
	// A board without a clock can be behind the CA it is about to use.
	if t.NotBefore.Before(ca.Cert.NotBefore) {
		t.NotBefore = ca.Cert.NotBefore
	}
	if leaf.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if leaf.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, ip := range leaf.IPs {
		t.IPAddresses = append(t.IPAddresses, ip.Unmap().AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.Cert, key, ca.key)
	if err != nil {
		return nil, err
	}
	return append(certPEM(der), ca.PEM...), nil
}

// EnsureKey makes sure that path holds a private key.
func EnsureKey(path string) error {
	_, err := ensureKey(path)
	return err
}

func ensureKey(path string) (crypto.Signer, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return made, writeKey(path, made)
}

// Request makes a signing request for the key at path, which is made if it is
// missing.
func Request(path string, leaf Leaf) ([]byte, error) {
	key, err := ensureKey(path)
	if err != nil {
		return nil, err
	}
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organization}}
	der, err := x509.CreateCertificateRequest(rand.Reader, t, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ParseCert reads the first certificate of a PEM file.
func ParseCert(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func loadKey(path string) (crypto.Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "EC PRIVATE KEY" {
		return nil, fmt.Errorf("%s: no EC private key in PEM", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// writeFile replaces a file whole: a power cut leaves the old one or the new.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func serial() *big.Int {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails on Linux: crypto/rand ends the process instead
	sum := sha256.Sum256(b)
	return new(big.Int).SetBytes(sum[:8])
}
