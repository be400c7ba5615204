package cli

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestManifests(t *testing.T) {
	top := filepath.Join(t.TempDir(), "manifests")
	if found, err := manifests(top); err != nil || len(found) != 0 {
		t.Fatal(found, err)
	}
	for _, name := range []string{"a.yaml", "sub/b.json", "c.new", ".d.yaml", "e.yml", "e.yml.skip"} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := manifests(top)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for path := range found {
		names = append(names, filepath.Base(path))
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"a.yaml", "b.json"}) {
		t.Fatal(names)
	}
}
