//! The store's entries as types. Keys: `documents`, `starts`, `told`, `grants/ID`, `names/NAME`,
//! `indexes/N`, `members/KEY`, `statuses/KEY`, `endpoints/KEY` (KEY: a signing key in hex). Every
//! value is JSON; readers ignore fields they do not know.

use crate::store::{Cas, Store, StoreError};
use holdfast_core::cluster::MeshIndex;
use holdfast_core::grant::Member;
use holdfast_core::keys::{Digest, PublicKey, hex, unhex};
use holdfast_core::names::{GrantId, NodeName};
use holdfast_core::signed::Signed;
use holdfast_core::status::NodeStatus;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::net::SocketAddr;

/// `documents`.
pub const DOCUMENTS: &str = "documents";
/// `starts`: how often the lighthouse started.
pub const STARTS: &str = "starts";

/// `told`: what members were told last.
pub const TOLD: &str = "told";

/// `grants/ID`.
pub fn grant(id: &GrantId) -> String {
    format!("grants/{id}")
}
/// `names/NAME`.
pub fn name(name: &NodeName) -> String {
    format!("names/{name}")
}
/// `indexes/N`.
pub fn index(index: MeshIndex) -> String {
    format!("indexes/{}", index.get())
}
/// `members/KEY`.
pub fn member(key: &PublicKey) -> String {
    format!("members/{}", hex(&key.0))
}
/// `statuses/KEY`.
pub fn status(key: &PublicKey) -> String {
    format!("statuses/{}", hex(&key.0))
}
/// `endpoints/KEY`.
pub fn endpoint(key: &PublicKey) -> String {
    format!("endpoints/{}", hex(&key.0))
}

/// The signing key at the end of a store key.
pub fn key_of(store_key: &str) -> Option<PublicKey> {
    let (_, text) = store_key.rsplit_once('/')?;
    unhex(text)?.try_into().ok().map(PublicKey)
}

/// How often a change is tried that others get in the way of. One of them gets through each time.
const TRIES: usize = 256;

/// Who has a name or an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The signing key.
    pub key: PublicKey,
    /// Unix seconds.
    pub at: u64,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberRow {
    /// As it joined.
    pub member: Member,
    /// Unix seconds.
    pub joined: u64,
}

/// A member's last account of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusRow {
    /// As it came.
    pub status: Signed<NodeStatus>,
    /// Unix seconds.
    pub at: u64,
}

/// A member's mesh socket as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Address and port.
    pub endpoint: SocketAddr,
}

/// A revision of the member list, and what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldRow {
    /// The revision.
    pub revision: u64,
    /// Of all that members are told.
    pub digest: Digest,
}

/// Reads an entry with its version.
pub async fn read<T: DeserializeOwned>(
    store: &dyn Store,
    key: &str,
) -> Result<Option<(T, u64)>, StoreError> {
    match store.get(key).await? {
        Some(found) => Ok(Some((parse(key, &found.value)?, found.version))),
        None => Ok(None),
    }
}

/// Reads the value of an entry.
pub fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|e| StoreError::Entry {
        key: key.into(),
        reason: e.to_string(),
    })
}

/// Writes an entry if it is at `expected`.
pub async fn write(
    store: &dyn Store,
    key: &str,
    expected: Option<u64>,
    value: &(impl Serialize + Sync),
) -> Result<Cas, StoreError> {
    let bytes = serde_json::to_vec(value).map_err(|e| StoreError::Entry {
        key: key.into(),
        reason: e.to_string(),
    })?;
    store.cas(key, expected, Some(bytes)).await
}

/// Changes an entry; `change` sees what is there and may be asked several times. Nothing is
/// written when it gives back what it got; what is there is durable then.
pub async fn update<T, E>(
    store: &dyn Store,
    key: &str,
    mut change: impl FnMut(Option<T>) -> Result<T, E> + Send,
) -> Result<T, E>
where
    T: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync,
    E: From<StoreError>,
{
    for _ in 0..TRIES {
        let (old, version) = read::<T>(store, key).await?.unzip();
        let new = change(old.clone())?;
        if old.as_ref() == Some(&new) {
            // Somebody else's write may still be on its way to the disk.
            store.settled().await?;
            return Ok(new);
        }
        if write(store, key, version, &new).await? == Cas::Done {
            return Ok(new);
        }
    }
    Err(StoreError::Contended(key.into()).into())
}

/// Removes an entry if `mine` says so of what is there.
pub async fn remove<T: DeserializeOwned + Send>(
    store: &dyn Store,
    key: &str,
    mine: impl Fn(&T) -> bool + Send,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        match read::<T>(store, key).await? {
            Some((value, version)) if mine(&value) => {
                if store.cas(key, Some(version), None).await? == Cas::Done {
                    return Ok(());
                }
            }
            _ => return Ok(()),
        }
    }
    Err(StoreError::Contended(key.into()))
}
