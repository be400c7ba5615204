//! The files that k3s finds before it starts.

use super::config::{self, Paths};
use crate::network::RESOLV_CONF;
use crate::node;
use anyhow::Context as _;
use holdfast_core::keys::hex;
use holdfast_core::state::{Admission, Identity};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const CONFIG: &str = "/etc/rancher/k3s/config.yaml";
const TOKEN: &str = "/etc/rancher/k3s/holdfast-server-token";
const AGENT_TOKEN: &str = "/etc/rancher/k3s/holdfast-agent-token";
const PASSWORD: &str = "/etc/rancher/node/password";

/// The node password: from the identity, so that a lost `/var` does not lock the node out of its
/// own name ("Node password rejected").
pub fn node_password(identity: &Identity) -> String {
    let mut hash = Sha256::new();
    hash.update(b"holdfast node password 1\n");
    hash.update(identity.signing.as_bytes());
    hex(&hash.finalize()[..16])
}

/// Writes a file whole, readable by root only.
pub(super) fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    if fs::read_to_string(path).is_ok_and(|t| t == text) {
        return Ok(());
    }
    let folder = path.parent().context("no folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .with_context(|| fresh.display().to_string())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path).with_context(|| path.display().to_string())
}

/// A token made once; on `/var`, so that a reset forgets it with the cluster's data.
fn token(path: &Path) -> anyhow::Result<()> {
    if fs::read_to_string(path).is_ok_and(|t| !t.trim().is_empty()) {
        return Ok(());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    put(path, &format!("{}\n", hex(&bytes)))
}

/// Writes all of them for a server.
///
/// # Errors
/// When one cannot be written.
pub fn write(admission: &Admission, identity: &Identity) -> anyhow::Result<()> {
    let paths = Paths {
        token: TOKEN,
        agent_token: AGENT_TOKEN,
        resolv_conf: RESOLV_CONF,
    };
    token(Path::new(TOKEN))?;
    token(Path::new(AGENT_TOKEN))?;
    put(
        Path::new(PASSWORD),
        &format!("{}\n", node_password(identity)),
    )?;
    put(
        Path::new(CONFIG),
        &config::server(admission, &node::plan(admission), paths),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::keys::PrivateKey;

    #[test]
    fn the_password_follows_from_the_identity_and_tells_nothing_of_it() {
        let identity = |n| Identity {
            signing: PrivateKey::from_bytes([n; 32]),
            mesh: PrivateKey::from_bytes([9; 32]),
            machine: None,
            other: Default::default(),
        };
        let password = node_password(&identity(1));
        assert_eq!(
            (password.len(), &password),
            (32, &node_password(&identity(1)))
        );
        assert_ne!(password, node_password(&identity(2)));
    }

    #[test]
    fn tokens_stay_and_files_are_roots_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/token");
        token(&path).unwrap();
        let first = fs::read_to_string(&path).unwrap();
        token(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
