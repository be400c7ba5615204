// Package version holds what the stand-in says about itself.
package version

import "k8s.io/component-base/version"

// Banner is printed at every start and by --version, so that nobody takes this
// program for the official k3s.
func Banner() string {
	return "k3s stand-in (Holdfast test equipment), Kubernetes " + version.Get().GitVersion
}
