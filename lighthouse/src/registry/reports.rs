//! What nodes say of themselves, and where the mesh saw them.

use super::{Registry, unix_now};
use crate::refusal::Refusal;
use crate::rows::{self, EndpointRow, StatusRow};
use holdfast_core::api::{ApiErrorKind, NodeEntry};
use holdfast_core::keys::{MeshKey, PublicKey};
use holdfast_core::signed::Signed;
use holdfast_core::status::NodeStatus;
use std::net::SocketAddr;

/// What only the running lighthouse knows of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Live {
    /// Seconds since the last handshake.
    pub handshake_age: Option<u64>,
    /// Whether a standing connection is open.
    pub standing: bool,
}

impl Registry {
    /// Keeps a node's account of itself.
    ///
    /// # Errors
    /// [`Refusal`]: not signed by the node's key, older than what is held, the store.
    pub async fn put_status(
        &self,
        status: Signed<NodeStatus>,
        caller: PublicKey,
    ) -> Result<(), Refusal> {
        let opened = status
            .open(|k| *k == caller)
            .map_err(|e| Refusal::new(ApiErrorKind::RecordRefused, e.to_string()))?;
        if opened.cluster != self.cluster().id {
            return Err(Refusal::new(
                ApiErrorKind::RecordRefused,
                "made for another cluster",
            ));
        }
        let row = StatusRow {
            status,
            at: unix_now(),
        };
        rows::update(
            self.store.as_ref(),
            &rows::status(&caller),
            |old: Option<StatusRow>| {
                let held = old.and_then(|o| o.status.open(|k| *k == caller).ok());
                match held {
                    Some(held) if opened.counter < held.counter => Err(Refusal::older(
                        held.counter,
                        format!(
                            "counter {} is older than {}, which is held",
                            opened.counter, held.counter
                        ),
                    )),
                    _ => Ok(row.clone()),
                }
            },
        )
        .await?;
        // Not a change that other members wait for: the revision stays.
        let mut state = self
            .state
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.statuses.insert(caller, row);
        Ok(())
    }

    /// All nodes, as far as their records parse.
    #[must_use]
    pub fn nodes(&self, live: impl Fn(&PublicKey, &MeshKey) -> Live) -> Vec<NodeEntry> {
        let now = unix_now();
        self.see(|s| {
            s.members
                .iter()
                .filter_map(|(key, entry)| {
                    let record = entry.record()?;
                    let status = s.statuses.get(key);
                    let live = live(key, &record.mesh_key);
                    Some(NodeEntry {
                        name: record.name.clone(),
                        member: entry.row.member.clone(),
                        status: status.map(|r| r.status.clone()),
                        status_age: status.map(|r| now.saturating_sub(r.at)),
                        handshake_age: live.handshake_age,
                        standing: live.standing,
                        endpoint: s.endpoints.get(key).copied(),
                    })
                })
                .collect()
        })
    }

    /// The mesh saw a member at `endpoint`.
    ///
    /// # Errors
    /// [`Refusal`] of the store; the members hear of it all the same.
    pub async fn saw(&self, key: PublicKey, endpoint: SocketAddr) -> Result<(), Refusal> {
        if self.see(|s| s.endpoints.get(&key) == Some(&endpoint) || !s.members.contains_key(&key)) {
            return Ok(());
        }
        self.change(|s| {
            s.endpoints.insert(key, endpoint);
            super::join::before(s, &key)
        });
        rows::update(
            self.store.as_ref(),
            &rows::endpoint(&key),
            |_: Option<EndpointRow>| Ok::<_, Refusal>(EndpointRow { endpoint }),
        )
        .await?;
        Ok(())
    }
}
