// Command pack appends the components to a launcher:
// pack -launcher FILE -out FILE NAME=FILE...
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"holdfast.test/kube/internal/payload"
)

func main() {
	launcher := flag.String("launcher", "", "launcher binary")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if err := run(*launcher, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(launcher, out string, members []string) error {
	head, err := os.ReadFile(launcher)
	if err != nil {
		return err
	}
	body, err := archive(members)
	if err != nil {
		return err
	}
	t := payload.Trailer{Length: int64(len(body)), SHA256: sha256.Sum256(body)}
	file := append(append(head, body...), t.Marshal()...)
	tmp := out + ".tmp"
	if err := os.WriteFile(tmp, file, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, out)
}

// archive is a zstd-compressed tar of NAME=FILE members, in the given order,
// without owners or times: the same inputs give the same bytes. A FILE that
// begins with "->" is a symbolic link's target.
func archive(members []string) ([]byte, error) {
	var buf bytes.Buffer
	z, err := zstd.NewWriter(&buf, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
		return nil, err
	}
	for _, m := range members {
		name, path, ok := strings.Cut(m, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not NAME=FILE", m)
		}
		h := &tar.Header{Name: name, Mode: 0o755, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
		if target, link := strings.CutPrefix(path, "->"); link {
			h.Typeflag, h.Linkname = tar.TypeSymlink, target
			if err := w.WriteHeader(h); err != nil {
				return nil, err
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		h.Size = int64(len(b))
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
