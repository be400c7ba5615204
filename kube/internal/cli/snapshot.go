package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/control"
	"holdfast.test/kube/internal/paths"
)

const snapshotUsage = "k3s etcd-snapshot save [--name NAME] | ls | delete NAME..."

// snapshots keeps copies of the datastore below etcd-snapshot-dir.
func snapshots(args []string) error {
	if len(args) == 0 {
		return errors.New(snapshotUsage)
	}
	var flags, words []string
	for i := 1; i < len(args); i++ {
		switch {
		case args[i] == "--name" && i+1 < len(args):
			i++
			flags = append(flags, "--etcd-snapshot-name="+args[i])
		case strings.HasPrefix(args[i], "--name="):
			flags = append(flags, "--etcd-snapshot-name="+strings.TrimPrefix(args[i], "--name="))
		case strings.HasPrefix(args[i], "-"):
			flags = append(flags, args[i])
		default:
			words = append(words, args[i])
		}
	}
	c, err := config.LoadFromSystem(false, flags)
	if err != nil {
		return err
	}
	dir := c.SnapshotDir
	if dir == "" {
		dir = paths.Dirs{Data: c.DataDir}.Snapshots()
	}
	switch args[0] {
	case "save":
		return saveSnapshot(c, dir)
	case "ls", "list":
		return listSnapshots(dir)
	case "delete":
		for _, w := range words {
			if w != filepath.Base(w) {
				return fmt.Errorf("%q is a path; give a name that `k3s etcd-snapshot ls` shows", w)
			}
			if err := os.Remove(filepath.Join(dir, w)); err != nil {
				return err
			}
			fmt.Println("deleted", w)
		}
		return nil
	}
	return errors.New(snapshotUsage)
}

func saveSnapshot(c *config.Config, dir string) error {
	client, err := control.EtcdClient(paths.Dirs{Data: c.DataDir})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	r, err := client.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", c.SnapshotName, c.NodeName, time.Now().Unix()))
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path + ".part")
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		return err
	}
	fmt.Println("saved", path)
	return prune(dir, c.SnapshotName, c.SnapshotRetention)
}

// prune keeps the newest of a name; 0 keeps all.
func prune(dir, name string, keep int) error {
	files, err := filepath.Glob(filepath.Join(dir, name+"-*"))
	if err != nil || keep == 0 {
		return err
	}
	sort.Slice(files, func(i, j int) bool { return modTime(files[i]).After(modTime(files[j])) })
	for _, f := range files[min(keep, len(files)):] {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

func modTime(path string) time.Time {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

func listSnapshots(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && !strings.HasSuffix(f, ".part") {
			fmt.Printf("%s\t%d bytes\t%s\n", filepath.Base(f), st.Size(), st.ModTime().UTC().Format(time.RFC3339))
		}
	}
	return nil
}
