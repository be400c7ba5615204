package control

import (
	"context"
	"fmt"

	cm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	cmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/paths"
)

// A further server is refused, so there is nobody to elect against; the wait
// for an old lease would only delay a restart.
const noElection = "--leader-elect=false"

// RunControllerManager runs kube-controller-manager until ctx ends.
func RunControllerManager(ctx context.Context, c *config.Config, d paths.Dirs) error {
	s, err := cmoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	named := s.Flags(cm.KnownControllers(), cm.ControllersDisabledByDefault(), cm.ControllerAliases())
	s.ParsedFlags = &named
	fs := flagSet("kube-controller-manager")
	for _, f := range named.FlagSets {
		fs.AddFlagSet(f)
	}
	kubeconfig := d.Server("cred", "controller.kubeconfig")
	args := []string{
		"--allocate-node-cidrs=true",
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--cluster-cidr=" + joinPrefixes(c.ClusterCIDRs),
		"--cluster-signing-kube-apiserver-client-cert-file=" + d.TLS("client-ca.crt"),
		"--cluster-signing-kube-apiserver-client-key-file=" + d.TLS("client-ca.key"),
		"--cluster-signing-kubelet-client-cert-file=" + d.TLS("client-ca.crt"),
		"--cluster-signing-kubelet-client-key-file=" + d.TLS("client-ca.key"),
		"--cluster-signing-kubelet-serving-cert-file=" + d.TLS("server-ca.crt"),
		"--cluster-signing-kubelet-serving-key-file=" + d.TLS("server-ca.key"),
		"--cluster-signing-legacy-unknown-cert-file=" + d.TLS("server-ca.crt"),
		"--cluster-signing-legacy-unknown-key-file=" + d.TLS("server-ca.key"),
		"--controllers=*,tokencleaner",
		"--flex-volume-plugin-dir=/var/lib/kubelet/volumeplugins",
		"--kubeconfig=" + kubeconfig,
		noElection,
		"--profiling=false",
		"--root-ca-file=" + d.TLS("server-ca.crt"),
		"--secure-port=10257",
		"--service-account-private-key-file=" + d.TLS("service.key"),
		"--service-cluster-ip-range=" + joinPrefixes(c.ServiceCIDRs),
		"--tls-cert-file=" + d.TLS("serving-kube-apiserver.crt"),
		"--tls-private-key-file=" + d.TLS("serving-kube-apiserver.key"),
		"--use-service-account-credentials=true",
	}
	if err := fs.Parse(append(args, dashes(c.ControllerArgs)...)); err != nil {
		return fmt.Errorf("kube-controller-manager-arg: %w", err)
	}
	if err := s.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	cfg, err := s.Config(ctx, cm.KnownControllers(), cm.ControllersDisabledByDefault(), cm.ControllerAliases())
	if err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	return cm.Run(ctx, cfg.Complete())
}

// RunScheduler runs kube-scheduler until ctx ends.
func RunScheduler(ctx context.Context, c *config.Config, d paths.Dirs) error {
	s := scheduleroptions.NewOptions()
	fs := flagSet("kube-scheduler")
	for _, f := range s.Flags.FlagSets {
		fs.AddFlagSet(f)
	}
	kubeconfig := d.Server("cred", "scheduler.kubeconfig")
	args := []string{
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--kubeconfig=" + kubeconfig,
		noElection,
		"--profiling=false",
		"--secure-port=10259",
		"--tls-cert-file=" + d.TLS("serving-kube-apiserver.crt"),
		"--tls-private-key-file=" + d.TLS("serving-kube-apiserver.key"),
	}
	if err := fs.Parse(append(args, dashes(c.SchedulerArgs)...)); err != nil {
		return fmt.Errorf("kube-scheduler-arg: %w", err)
	}
	if err := s.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	cc, sched, err := scheduler.Setup(ctx, s)
	if err != nil {
		return fmt.Errorf("kube-scheduler: %w", err)
	}
	return scheduler.Run(ctx, cc, sched)
}
