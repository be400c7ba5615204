//! The node's own keys: made once, stored before their first use.

use crate::store::Store;
use anyhow::{Context as _, anyhow};
use holdfast_core::keys::{MeshKey, PrivateKey, PublicKey, hex};
use holdfast_core::names::NodeName;
use holdfast_core::state::Identity;
use holdfast_mesh::MeshPrivateKey;
use zeroize::Zeroizing;

fn fresh() -> anyhow::Result<PrivateKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|e| anyhow!("no random bytes: {e}"))?;
    Ok(PrivateKey::from_bytes(*bytes))
}

/// The node's keys; makes and stores them first where there are none. The second value says
/// whether they were made.
///
/// # Errors
/// When they cannot be made or stored.
pub async fn ensure(store: &Store, machine: Option<String>) -> anyhow::Result<(Identity, bool)> {
    if let Some(identity) = &store.get().identity {
        return Ok((identity.clone(), false));
    }
    let identity = Identity {
        signing: fresh()?,
        mesh: fresh()?,
        machine,
        other: Default::default(),
    };
    let stored = identity.clone();
    store
        .update(|d| d.identity = Some(stored))
        .await
        .context("the node's keys cannot be stored")?;
    Ok((identity, true))
}

/// The WireGuard key pair.
pub fn mesh(identity: &Identity) -> MeshPrivateKey {
    MeshPrivateKey::from_bytes(*identity.mesh.as_bytes())
}

/// The WireGuard public key.
pub fn mesh_public(identity: &Identity) -> MeshKey {
    mesh(identity).public()
}

/// The name of a node that was given none: from its key, so that it stays the same.
///
/// # Errors
/// Never in fact: the name is made of hex digits.
pub fn default_name(key: &PublicKey) -> anyhow::Result<NodeName> {
    Ok(NodeName::new(format!("node-{}", hex(&key.0[..4])))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn made_once_and_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(32 << 20).unwrap();
        let (store, _) = Store::open(file.path()).await.unwrap();
        let (made, new) = ensure(&store, None).await.unwrap();
        assert!(new);
        let (store, _) = Store::open(file.path()).await.unwrap();
        let (again, new) = ensure(&store, None).await.unwrap();
        assert!(!new);
        assert_eq!(made.signing.public(), again.signing.public());
        assert_ne!(made.signing.as_bytes(), made.mesh.as_bytes());
        assert!(
            default_name(&made.signing.public())
                .unwrap()
                .as_str()
                .starts_with("node-")
        );
    }
}
