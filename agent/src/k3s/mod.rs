//! k3s on the node.

/// k3s's administrator configuration.
pub const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";
/// The Kubernetes API on the node.
pub const API: &str = "127.0.0.1:6443";
/// run
pub async fn run(_node: std::sync::Arc<crate::node::Node>) {}
