// Command launcher is the outer k3s file: it unpacks the components that are
// packed behind it and becomes them.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"holdfast.test/kube/internal/payload"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "k3s stand-in:", err)
		os.Exit(1)
	}
}

func run() error {
	f, size, err := payload.Self()
	if err != nil {
		return err
	}
	defer f.Close()
	trailer, packed, err := payload.Open(f, size)
	if err != nil {
		return err
	}
	home, _ := os.UserHomeDir()
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "kubectl" {
		args = append([]string{"kubectl"}, args...)
	}
	dataDir := payload.DataDir(args, os.Getenv, os.ReadFile, os.Geteuid() == 0, home)
	dir, err := payload.Unpack(trailer, packed, dataDir)
	if err != nil {
		return err
	}
	// The components find each other and the pod program through PATH order
	// and this variable; the node's own tools come after.
	if err := os.Setenv("K3S_STANDIN_ROOT", dir); err != nil {
		return err
	}
	exe := payload.Exe(dir)
	return fmt.Errorf("starting %s: %w", exe, syscall.Exec(exe, append([]string{"k3s"}, args...), os.Environ()))
}
