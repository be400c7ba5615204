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
    /// What is relayed between two nodes at most, in megabits a second, both directions together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_mbits: Option<u64>,
}

/// So that one pair of nodes does not take a small machine's whole line, and has enough for
/// most things.
const RELAY_MBITS: u64 = 200;

/// The relay's bound in bytes a second.
pub fn relay_rate(config: Option<&LighthouseConfig>) -> u64 {
    let mbits = config.and_then(|c| c.relay_mbits).unwrap_or(RELAY_MBITS);
    mbits.saturating_mul(125_000)
}

impl LighthouseConfig {
    /// Reads the one in `dir`; without one, a lighthouse listens on every address, on the ports
    /// that the documents name.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(CONFIG);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        toml::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} cannot be used", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_optional_and_says_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LighthouseConfig::read(dir.path()).unwrap(), None);
        assert_eq!(relay_rate(None), 25_000_000);
        let text = "https = []\nudp = \"0.0.0.0:1\"\nrelay_mbits = 8\n";
        std::fs::write(dir.path().join(CONFIG), text).unwrap();
        let config = LighthouseConfig::read(dir.path()).unwrap();
        assert_eq!(relay_rate(config.as_ref()), 1_000_000);
        std::fs::write(dir.path().join(CONFIG), "https = [\"0.0.0.0\"]\n").unwrap();
        let error = crate::exit::describe(&LighthouseConfig::read(dir.path()).unwrap_err());
        assert!(
            error.contains("config.toml") && error.contains("socket address"),
            "{error}"
        );
    }
}
