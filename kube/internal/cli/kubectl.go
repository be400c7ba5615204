package cli

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
)

// kubectl is the real one, with k3s's kubeconfig where nothing else is asked for.
func kubectl(args []string) int {
	const admin = "/etc/rancher/k3s/k3s.yaml"
	if os.Getenv("KUBECONFIG") == "" {
		if f, err := os.Open(admin); err == nil {
			_ = f.Close()
			_ = os.Setenv("KUBECONFIG", admin)
		}
	}
	// kubectl reads its arguments from here too, for plugins and completion.
	os.Args = append([]string{"kubectl"}, args...)
	return cli.Run(cmd.NewDefaultKubectlCommand())
}
