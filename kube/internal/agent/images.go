package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"holdfast.test/kube/internal/paths"
)

// stamp tells an archive that was imported from one that changed.
type stamp struct {
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modTime"`
}

// ImportImages imports the built-in images and <data-dir>/agent/images/*.tar,
// .tar.gz, .tar.zst into containerd; an archive that has not changed since it
// was imported is left alone, as the images are kept on disk.
func ImportImages(ctx context.Context, d paths.Dirs, program string, say func(string)) error {
	list := d.Agent("containerd", "imported.json")
	done := map[string]stamp{}
	if b, err := os.ReadFile(list); err == nil {
		// A damaged list only costs another import.
		_ = json.Unmarshal(b, &done)
	}
	files, err := filepath.Glob(d.Agent("images", "*.tar*"))
	if err != nil {
		return err
	}
	changed := false
	for _, path := range append([]string{program}, files...) {
		st, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("image archive: %w", err)
		}
		now := stamp{st.Size(), st.ModTime().UTC()}
		if have, ok := done[path]; ok && have.Size == now.Size && have.ModTime.Equal(now.ModTime) {
			continue
		}
		r, err := archive(path, path == program)
		if err != nil {
			return fmt.Errorf("image archive %s: %w", path, err)
		}
		err = ctrImport(ctx, r)
		_ = r.Close()
		if err != nil {
			return fmt.Errorf("importing %s: %w", path, err)
		}
		say("imported images from " + path)
		done[path], changed = now, true
	}
	if !changed {
		return nil
	}
	b, err := json.Marshal(done)
	if err != nil {
		return err
	}
	return os.WriteFile(list, b, 0o600)
}

func archive(path string, program bool) (io.ReadCloser, error) {
	if program {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		image, err := BuiltinImages(b)
		return io.NopCloser(bytes.NewReader(image)), err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasSuffix(path, ".zst"):
		z, err := zstd.NewReader(f)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{z, f}, nil
	case strings.HasSuffix(path, ".gz"):
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{z, f}, nil
	}
	return f, nil
}

func ctrImport(ctx context.Context, r io.Reader) error {
	cmd := exec.CommandContext(ctx, "ctr", "--address", paths.ContainerdSocket, "--namespace", "k8s.io", "images", "import", "-")
	cmd.Stdin = r
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
