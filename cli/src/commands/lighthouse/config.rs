//! `config.toml` in a lighthouse's folder: where it listens. The rest of the folder belongs to the
//! lighthouse itself.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;

/// The file's name.
pub const CONFIG: &str = "config.toml";

/// Where a lighthouse listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LighthouseConfig {
    /// Its HTTPS API, TCP.
    pub https: Vec<SocketAddr>,
    /// Its mesh socket, UDP.
    pub udp: SocketAddr,
}

impl LighthouseConfig {
    /// Reads the one in `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: is {} a lighthouse's folder (CLUSTER/lighthouse)?", path.display(), dir.display())
        })?;
        let config: Self = toml::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))?;
        if config.https.is_empty() {
            anyhow::bail!("{}: https names no address to listen on, e.g. https = [\"0.0.0.0:8443\"]", path.display());
        }
        Ok(config)
    }
}
