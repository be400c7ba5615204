//! What an image says of itself: `/etc/holdfast/image.json` in the initramfs, and
//! `/usr/lib/holdfast/services.json` in the root.

use serde::{Deserialize, Serialize};

/// Where the image's own description lies, in the initramfs.
pub const IMAGE_JSON: &str = "/etc/holdfast/image.json";
/// Where the recipe's services lie, in the root.
pub const SERVICES_JSON: &str = "/usr/lib/holdfast/services.json";

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
