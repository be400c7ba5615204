// Package payload is the self-extracting form of the k3s file: a small launcher
// followed by a zstd-compressed tar and a fixed trailer.
//
// The launcher is cheap to start; the components come out once into
// <data-dir>/data/<hash> and run from there, as they do in k3s.
package payload

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

const (
	magic = "hfk3spl1"
	// TrailerSize is the length of the trailer in bytes: magic, payload length
	// (big endian), SHA-256 of the payload.
	TrailerSize = 8 + 8 + 32
)

// ErrNoPayload says that a file is a bare launcher.
var ErrNoPayload = errors.New("no components are packed into this file; build it with kube/build.sh")

// Trailer describes the packed components.
type Trailer struct {
	// Length of the compressed tar that ends where the trailer begins, in bytes.
	Length int64
	// SHA256 of the compressed tar; its hex form names the data directory.
	SHA256 [32]byte
}

// Hash is the name of the directory below <data-dir>/data.
func (t Trailer) Hash() string { return hex.EncodeToString(t.SHA256[:]) }

// Marshal gives the trailer's bytes.
func (t Trailer) Marshal() []byte {
	var b bytes.Buffer
	b.WriteString(magic)
	_ = binary.Write(&b, binary.BigEndian, uint64(t.Length))
	b.Write(t.SHA256[:])
	return b.Bytes()
}

// ParseTrailer reads the last TrailerSize bytes of a file of fileSize bytes.
func ParseTrailer(b []byte, fileSize int64) (Trailer, error) {
	if len(b) != TrailerSize || string(b[:8]) != magic {
		return Trailer{}, ErrNoPayload
	}
	length := binary.BigEndian.Uint64(b[8:16])
	if length == 0 || length > uint64(fileSize-TrailerSize) {
		return Trailer{}, fmt.Errorf("payload of %d bytes cannot be in a file of %d bytes: the file is damaged", length, fileSize)
	}
	t := Trailer{Length: int64(length)}
	copy(t.SHA256[:], b[16:])
	return t, nil
}

// Open finds the payload in r, which is size bytes long.
func Open(r io.ReaderAt, size int64) (Trailer, *io.SectionReader, error) {
	if size < TrailerSize {
		return Trailer{}, nil, ErrNoPayload
	}
	b := make([]byte, TrailerSize)
	if _, err := r.ReadAt(b, size-TrailerSize); err != nil {
		return Trailer{}, nil, fmt.Errorf("reading the payload trailer: %w", err)
	}
	t, err := ParseTrailer(b, size)
	if err != nil {
		return Trailer{}, nil, err
	}
	return t, io.NewSectionReader(r, size-TrailerSize-t.Length, t.Length), nil
}
