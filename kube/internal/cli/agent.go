package cli

import (
	"context"
	"os"

	"holdfast.test/kube/internal/agent"
	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/token"
)

// runAgent joins a server and runs a node until ctx ends or a part fails. The
// kubelet talks to the server it joined; k3s's own balancer over all servers is
// not here.
func runAgent(ctx context.Context, c *config.Config) error {
	t, err := token.Parse(c.Token, token.NodeUser)
	if err != nil {
		return err
	}
	if err := prepare(c); err != nil {
		return err
	}
	ips, err := agent.NodeIPs(c)
	if err != nil {
		return err
	}
	server := "https://" + c.Server.Host
	n := &agent.Node{
		Config: c, Dirs: paths.Dirs{Data: c.DataDir}, Root: os.Getenv(rootVariable), NodeIPs: ips,
		Supervisor: server, APIServer: server, Token: t, Say: say,
		Joined: func() { say("joined " + server) },
	}
	return n.Run(ctx)
}
