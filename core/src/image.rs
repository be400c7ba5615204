//! What an image says of itself: `/etc/holdfast/image.json` in the initramfs, and what a recipe asks
//! of the node, in `/usr/lib/holdfast` of the root.

use serde::{Deserialize, Serialize};

/// Where the image's own description lies, in the initramfs.
pub const IMAGE_JSON: &str = "/etc/holdfast/image.json";
/// Where the recipe's services lie, in the root.
pub const SERVICES_JSON: &str = "/usr/lib/holdfast/services.json";

/// Where the recipe's kernel settings lie, in the root: lines `key = value` as in sysctl.conf(5).
pub const SYSCTL_CONF: &str = "/usr/lib/holdfast/sysctl.conf";
/// Where the list of what each node makes for itself lies, in the root.
pub const PROVIDED_JSON: &str = "/usr/lib/holdfast/provided.json";
/// Where the recipe's entries for k3s's configuration lie, in the root.
pub const K3S_CONFIG: &str = "/usr/lib/holdfast/k3s-server.yaml";
/// The folder of manifests for k3s to deploy, in the root.
pub const K3S_MANIFESTS: &str = "/usr/lib/holdfast/manifests";
/// The folder of container images for k3s to import, in the root.
pub const K3S_IMAGES: &str = "/usr/lib/holdfast/images";
/// What in the text of a [`Provided`] file stands for the node's machine id.
pub const MACHINE_ID: &str = "{machine-id}";

/// Keys of k3s's configuration that the agent sets or that would take the node out of its hands: no
/// recipe may (docs.k3s.io, "k3s server").
pub const K3S_OWN_KEYS: [&str; 30] = [
    "advertise-address",
    "advertise-port",
    "agent-token",
    "agent-token-file",
    "bind-address",
    "cluster-cidr",
    "cluster-dns",
    "cluster-init",
    "cluster-reset",
    "config",
    "data-dir",
    "datastore-endpoint",
    "docker",
    "flannel-iface",
    "https-listen-port",
    "node-external-ip",
    "node-ip",
    "node-label",
    "node-name",
    "node-taint",
    "prefer-bundled-bin",
    "resolv-conf",
    "rootless",
    "server",
    "service-cidr",
    "tls-san",
    "token",
    "token-file",
    "write-kubeconfig",
    "write-kubeconfig-mode",
];

/// Something below `/var` or `/run`, which no image can hold: init makes it at each start, where it
/// is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provided {
    /// Absolute path.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub what: ProvidedKind,
}

/// What a [`Provided`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ProvidedKind {
    /// A folder.
    Dir,
    /// A file; [`MACHINE_ID`] in its text is replaced.
    File {
        /// Its text.
        content: String,
        /// Mode 755 instead of 644.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: String,
    },
}

/// Which k3s an image holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct K3sInfo {
    /// e.g. `v1.36.4+k3s1`.
    pub version: String,
    /// Of the binary, in hex.
    pub sha256: String,
    /// True when test equipment stands in for the official binary.
    #[serde(default)]
    pub stand_in: bool,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// For people.
    pub version: String,
    /// Grows from release to release.
    pub generation: u64,
    /// The board's name.
    pub board: String,
    /// The recipe's name.
    pub recipe: String,
    /// Unix seconds; the first floor of the clock.
    pub built: u64,
    /// The k3s in the root, if any.
    #[serde(default)]
    pub k3s: Option<K3sInfo>,
}

/// A service that a recipe adds; init supervises it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Names the service, its cgroup and its log lines.
    pub name: String,
    /// The program (absolute path in the root) and its arguments.
    pub exec: Vec<String>,
    /// Environment, `NAME=VALUE`.
    #[serde(default)]
    pub env: Vec<String>,
    /// On a stop, signal the main process only and leave its children (container shims).
    #[serde(default)]
    pub keep_children: bool,
    /// A cgroup of its own with all controllers delegated.
    #[serde(default)]
    pub delegate: bool,
}
