//! A lighthouse that was lost and put in place again has new keys, which no pin fits. What proves it
//! is the *lighthouses* document that a root signed: it must be newer than the one held and name
//! the very key that the TLS connection proved.
//!
//! Nothing is trusted before that and nothing told: the call shows a key made for it alone, and
//! asks for the documents, which are no secret. Whoever answers at the address without the new
//! key can at most be asked in vain.

use crate::error::ClientError;
use crate::transport::LighthouseClient;
use holdfast_core::cluster::ClusterId;
use holdfast_core::documents::{DocumentError, DocumentSet, Lighthouses, Roots, accept};
use holdfast_core::keys::{PrivateKey, PublicKey};
use holdfast_tls::{Identity, PinMismatch};

/// What a member holds of its lighthouses.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Who signs documents.
    pub roots: Roots,
    /// The cluster.
    pub cluster: ClusterId,
    /// Generation of the *lighthouses* document that is held.
    pub generation: u64,
}

/// Why whoever answers is no lighthouse's successor.
#[derive(Debug, thiserror::Error)]
pub enum SuccessorError {
    /// It could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No random bytes for the key of the call.
    #[error("the system's random source failed: {0}")]
    Random(String),
    /// Its *lighthouses* document does not hold.
    #[error("the lighthouses document of {address} is refused: {source}")]
    Document {
        /// `host:port`.
        address: String,
        /// Why.
        source: DocumentError,
    },
    /// It has no newer document than the one that is held.
    #[error(
        "{address} shows the unknown key {key} and the lighthouses document of generation {found}; {held} is held"
    )]
    NotNewer {
        /// `host:port`.
        address: String,
        /// What it proved to hold.
        key: PublicKey,
        /// What it has.
        found: u64,
        /// What is held.
        held: u64,
    },
    /// No root names its key.
    #[error("{address} shows the key {key}, which lighthouses document {generation} does not name")]
    NotNamed {
        /// `host:port`.
        address: String,
        /// What it proved to hold.
        key: PublicKey,
        /// Of its document.
        generation: u64,
    },
}

impl Trust {
    /// Checks that `set` makes `key` a lighthouse's.
    ///
    /// # Errors
    /// [`SuccessorError`].
    pub fn names(
        &self,
        address: &str,
        key: PublicKey,
        set: &DocumentSet,
    ) -> Result<Lighthouses, SuccessorError> {
        let address = address.to_owned();
        let list = match accept(&set.lighthouses, &self.roots, self.cluster, None) {
            Ok(list) => list,
            Err(source) => return Err(SuccessorError::Document { address, source }),
        };
        if list.generation <= self.generation {
            return Err(SuccessorError::NotNewer {
                address,
                key,
                found: list.generation,
                held: self.generation,
            });
        }
        if !list.lighthouses.iter().any(|l| l.key == key) {
            return Err(SuccessorError::NotNamed {
                address,
                key,
                generation: list.generation,
            });
        }
        Ok(list)
    }
}

/// After `error`: the documents of the lighthouse that took the place of the pinned one; none when
/// the error was not about its key.
///
/// # Errors
/// [`SuccessorError`] when whoever answers is no successor.
pub async fn successor(
    error: &ClientError,
    trust: &Trust,
) -> Result<Option<DocumentSet>, SuccessorError> {
    let Some((address, found)) = shown(error) else {
        return Ok(None);
    };
    let mut own = [0; 32];
    getrandom::fill(&mut own).map_err(|e| SuccessorError::Random(e.to_string()))?;
    let own = Identity::from_key(&PrivateKey::from_bytes(own)).map_err(ClientError::from)?;
    // Pinned to what was shown: this handshake proves it, and all is asked over this connection.
    let client = LighthouseClient::new(vec![address.to_owned()], found, Some(&own))?;
    let set = client.documents().await?;
    trust.names(address, found, &set)?;
    Ok(Some(set))
}

/// Like [`successor`], for one that has not joined yet: a client of that lighthouse, to which
/// `identity` is shown.
///
/// # Errors
/// As [`successor`].
pub async fn succeed(
    error: &ClientError,
    trust: &Trust,
    identity: &Identity,
) -> Result<Option<LighthouseClient>, SuccessorError> {
    let Some((address, found)) = shown(error) else {
        return Ok(None);
    };
    successor(error, trust).await?;
    let client = LighthouseClient::new(vec![address.to_owned()], found, Some(identity))?;
    Ok(Some(client))
}

/// Where another key than the pinned one was shown, and which.
fn shown(error: &ClientError) -> Option<(&str, PublicKey)> {
    let ClientError::WrongKey {
        address, mismatch, ..
    } = error
    else {
        return None;
    };
    match **mismatch {
        PinMismatch::OtherKey { found, .. } => Some((address, found)),
        _ => None,
    }
}
