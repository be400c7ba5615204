package payload

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// Prepared is where an image builder may put the tree: the payload's directory
// in a read-only root. It saves the first start its writes.
const Prepared = "/usr/lib/k3s/data"

// Unpack makes sure that <dataDir>/data/<hash> holds the payload and returns
// that directory. A directory that is there is complete: it is renamed into
// place only after its files and their digest were checked and flushed.
func Unpack(t Trailer, r io.Reader, dataDir string) (string, error) {
	parent := filepath.Join(dataDir, "data")
	dir := filepath.Join(parent, t.Hash())
	if _, err := os.Stat(dir); err == nil {
		return dir, link(parent, t.Hash())
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	if prepared := filepath.Join(Prepared, t.Hash()); isDir(prepared) {
		if err := os.Symlink(prepared, dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		return dir, link(parent, t.Hash())
	}
	// A link whose prepared tree went away with an older root.
	if _, err := os.Readlink(dir); err == nil {
		if err := os.Remove(dir); err != nil {
			return "", err
		}
	}
	tmp, err := os.MkdirTemp(parent, ".unpack-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	sum := sha256.New()
	if err := extract(io.TeeReader(r, sum), tmp); err != nil {
		return "", fmt.Errorf("unpacking into %s: %w", tmp, err)
	}
	if got := sum.Sum(nil); string(got) != string(t.SHA256[:]) {
		return "", fmt.Errorf("unpacking into %s: the payload's SHA-256 is %x, its trailer says %s: this file is damaged", tmp, got, t.Hash())
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		// Another invocation may have won the race.
		if _, statErr := os.Stat(dir); statErr != nil {
			return "", err
		}
	}
	return dir, link(parent, t.Hash())
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func extract(r io.Reader, dir string) error {
	z, err := zstd.NewReader(r)
	if err != nil {
		return err
	}
	defer z.Close()
	files := tar.NewReader(z)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("entry %q leads out of the archive", h.Name)
		}
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		case tar.TypeReg:
			err = writeFile(path, files, fs.FileMode(h.Mode).Perm())
		default:
			err = fmt.Errorf("entry %q has type %q, which is not expected", h.Name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
	// The digest covers the compressed bytes up to the very last.
	_, err = io.Copy(io.Discard, r)
	return err
}

func writeFile(path string, r io.Reader, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	// Without the flush a power cut could leave a renamed directory with empty
	// files, which every later start would trust.
	return errors.Join(err, f.Sync(), f.Close())
}

// link points data/current at hash.
func link(parent, hash string) error {
	current := filepath.Join(parent, "current")
	if now, err := os.Readlink(current); err == nil && now == hash {
		return nil
	}
	if previous, err := os.Readlink(current); err == nil {
		old := filepath.Join(parent, "previous")
		_ = os.Remove(old)
		_ = os.Symlink(previous, old)
	}
	tmp := filepath.Join(parent, fmt.Sprintf(".current-%d", os.Getpid()))
	if err := os.Symlink(hash, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, current); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return nil
}
