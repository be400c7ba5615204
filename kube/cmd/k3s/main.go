// Command k3s is the inner program: k3s's contract around Kubernetes' own
// components, all in one process. It is test equipment.
package main

import (
	"os"

	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // version metric

	"holdfast.test/kube/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:]))
}
