package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/paths"
)

// How often manifests are looked for.
const deployEvery = 15 * time.Second

// deployManifests applies what lies in <data-dir>/server/manifests and its
// folders, at the start and when a file changes, for as long as ctx lives. A
// file that goes is not undone, as with k3s.
func deployManifests(ctx context.Context, c *config.Config, d paths.Dirs) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	applied := map[string][sha256.Size]byte{}
	for {
		files, err := manifests(d.Server("manifests"))
		if err != nil {
			say("manifests: " + err.Error())
		}
		for path, sum := range files {
			if was, ok := applied[path]; ok && was == sum {
				continue
			}
			cmd := exec.CommandContext(ctx, program, "kubectl", "apply", "-f", path)
			cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
			if out, err := cmd.CombinedOutput(); err != nil {
				// What it needs may come later: a namespace, the default roles.
				say(fmt.Sprintf("manifest %s: %v: %s", path, err, strings.TrimSpace(string(out))))
				continue
			}
			applied[path] = sum
			say("applied manifest " + path)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(deployEvery):
		}
	}
}

// manifests are the files that k3s deploys, with their sums; the folder need
// not be there.
func manifests(top string) (map[string][sha256.Size]byte, error) {
	found := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir() || strings.HasPrefix(e.Name(), "."):
			return nil
		case !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
			return nil
		}
		if _, err := os.Stat(path + ".skip"); err == nil {
			return nil
		}
		b, err := os.ReadFile(path)
		if err == nil {
			found[path] = sha256.Sum256(b)
		}
		return err
	})
	return found, err
}
