//! The lighthouse as a member of the mesh, in user space: no TUN device, no root.

use crate::dir::Keys;
use crate::error::LighthouseError;
use crate::others::{self, Found};
use crate::registry::Registry;
use crate::splice::BoxedStream;
use futures_util::future::join_all;
use holdfast_core::api::RelayReply;
use holdfast_core::cluster::{AddressPlan, CONTROL_PORT, MeshIndex};
use holdfast_core::grant::VerifiedMember;
use holdfast_core::keys::{MeshKey, PublicKey};
use holdfast_mesh::{MTU, Mesh, MeshHandle, MeshSocket, Netstack, PeerConfig};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How long a node may take to accept a connection over the mesh.
const DIAL: Duration = Duration::from_secs(5);
/// A session without a handshake for longer is dead (WireGuard's `REJECT_AFTER_TIME`).
const SESSION: Duration = Duration::from_secs(180);
/// Endpoints are looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// Changes are gathered for at most so long.
const GATHER: Duration = Duration::from_millis(250);

/// The running member.
#[derive(Clone)]
pub struct MeshLink {
    handle: MeshHandle,
    stack: Netstack,
    addresses: AddressPlan,
}

impl std::fmt::Debug for MeshLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MeshLink(UDP {})", self.handle.port())
    }
}

impl MeshLink {
    /// Starts it on the UDP address `listen`, at place `index` of the mesh.
    ///
    /// # Errors
    /// [`LighthouseError::Bind`], [`LighthouseError::Mesh`].
    pub fn start(
        keys: &Keys,
        addresses: AddressPlan,
        index: MeshIndex,
        listen: SocketAddr,
    ) -> Result<Self, LighthouseError> {
        let bound = match listen {
            SocketAddr::V6(a) if a.ip().is_unspecified() => MeshSocket::bind(a.port()),
            _ => MeshSocket::bind_to(listen),
        };
        let socket = bound.map_err(|e| match e {
            holdfast_mesh::MeshError::Bind { source, .. } => LighthouseError::Bind {
                address: listen,
                protocol: "UDP",
                source,
            },
            other => LighthouseError::Mesh(other.to_string()),
        })?;
        let own = [
            IpNet::from(IpAddr::from(addresses.address4(index))),
            IpNet::from(IpAddr::from(addresses.address6(index))),
        ];
        let (stack, device) =
            Netstack::new(&own, MTU).map_err(|e| LighthouseError::Mesh(e.to_string()))?;
        let handle = Mesh::start(device, socket, &keys.mesh);
        handle.seek_nobody();
        Ok(Self {
            handle,
            stack,
            addresses,
        })
    }

    /// Bounds each relay channel.
    pub fn limit_relay(&self, bytes_per_second: u64) {
        self.handle.limit_relay(bytes_per_second);
    }

    /// The UDP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.handle.port()
    }

    /// Age of each live session.
    #[must_use]
    pub fn handshakes(&self) -> BTreeMap<MeshKey, Duration> {
        let status = self.handle.status().into_iter();
        status
            .filter_map(|s| Some((s.public_key, s.last_handshake?)))
            .collect()
    }

    /// The relay channel between two members; none when either is no peer of this lighthouse.
    #[must_use]
    pub fn channel(&self, one: MeshKey, other: MeshKey) -> Option<RelayReply> {
        let channel = self.handle.open_channel(one, other)?;
        Some(RelayReply {
            lighthouse: self.handle.public_key(),
            channel: channel.0,
        })
    }

    /// Carries datagrams of a member over `stream` until it ends.
    ///
    /// # Errors
    /// Of the stream; `NotFound`: no such peer.
    pub async fn carry(&self, member: MeshKey, stream: BoxedStream) -> io::Result<()> {
        self.handle.carry(member, stream).await
    }

    /// A connection to a node's control port.
    ///
    /// # Errors
    /// `NotConnected` at once when there is no session; `TimedOut`; of the connection.
    pub async fn dial(&self, node: &VerifiedMember) -> io::Result<BoxedStream> {
        let age = self.handshakes().remove(&node.record.mesh_key);
        if age.is_none_or(|age| age > SESSION) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let to = SocketAddr::from((self.addresses.address4(node.record.index), CONTROL_PORT));
        let stream = timeout(DIAL, self.stack.connect(to)).await??;
        Ok(Box::new(stream))
    }

    /// Keeps the peers as the registry has them, and tells it where they were seen. Ends when
    /// the mesh does.
    ///
    /// # Errors
    /// [`LighthouseError::Mesh`].
    pub async fn keep(self, registry: Arc<Registry>, own: PublicKey) -> LighthouseError {
        self.keep_with(registry, own, others::system).await
    }

    async fn keep_with(
        self,
        registry: Arc<Registry>,
        own: PublicKey,
        resolve: others::Resolve,
    ) -> LighthouseError {
        let (tell, found) = watch::channel(Found::new());
        let sessions = || {
            let alive = self.handshakes().into_iter();
            alive
                .filter(|(_, age)| *age < SESSION)
                .map(|(key, _)| key)
                .collect()
        };
        tokio::select! {
            ended = self.keep_peers(&registry, &own, found) => ended,
            () = others::seek(registry.clone(), own, sessions, tell, resolve) => {
                LighthouseError::Mesh("nobody tells of changes any more".into())
            }
        }
    }

    async fn keep_peers(
        &self,
        registry: &Registry,
        own: &PublicKey,
        mut found: watch::Receiver<Found>,
    ) -> LighthouseError {
        let mut changes = registry.watch();
        changes.mark_changed();
        let mut told = vec![];
        loop {
            let begun = Instant::now();
            if changes.has_changed().unwrap_or(false) || found.has_changed().unwrap_or(false) {
                changes.mark_unchanged();
                let places = found.borrow_and_update().clone();
                let wanted = peers(registry, own, &self.addresses, &places);
                if wanted != told {
                    match self.handle.set_peers(&wanted) {
                        Ok(_) => tracing::info!(peers = wanted.len(), "mesh peers set"),
                        Err(error) => tracing::error!(%error, "the mesh refuses its peers"),
                    }
                    told = wanted;
                }
                self.handle.set_nodes_with_clients(&registry.with_clients());
                // With many members that takes a while: not one after the other without a pause.
                let pause = begun.elapsed().saturating_mul(4).min(GATHER);
                tokio::time::sleep(pause).await;
            }
            tokio::select! {
                ended = self.handle.stopped() => return LighthouseError::Mesh(ended.to_string()),
                Ok(()) = changes.changed() => changes.mark_changed(),
                Ok(()) = found.changed() => found.mark_changed(),
                () = tokio::time::sleep(LOOK) => self.look(registry).await,
            }
        }
    }

    async fn look(&self, registry: &Registry) {
        let seen: BTreeMap<MeshKey, SocketAddr> = self
            .handle
            .status()
            .into_iter()
            .filter(|s| s.last_handshake.is_some() && s.confirmed)
            .filter_map(|s| Some((s.public_key, s.way?.endpoint()?)))
            .collect();
        let moved = registry.moved(&seen);
        let stored = moved.iter().map(|(key, at)| registry.saw(*key, *at));
        for refusal in join_all(stored).await.into_iter().filter_map(Result::err) {
            tracing::warn!(error = refusal.error.message, "an endpoint was not stored");
        }
    }
}

/// All verified members and the other lighthouses.
fn peers(
    registry: &Registry,
    own: &PublicKey,
    addresses: &AddressPlan,
    places: &Found,
) -> Vec<PeerConfig> {
    let held = registry.held();
    let others = held
        .lighthouses
        .lighthouses
        .iter()
        .filter(|l| l.key != *own);
    let others: Vec<_> = others
        .map(|l| (l.clone(), places.get(&l.mesh_key).copied()))
        .collect();
    let plans = registry.peers(own, addresses, &others);
    let config = plans.into_iter().map(|p| PeerConfig {
        public_key: p.key,
        allowed_ips: p.allowed_ips,
        endpoint: p.endpoint,
        keepalive: p.keepalive,
        // Nodes keep their sessions with us; from here that would only knock at closed NATs.
        always_on: p.keepalive.is_some(),
        plain: false,
        relay: false,
    });
    config.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::others::tests::registry;
    use crate::testing::*;

    #[tokio::test]
    async fn a_name_server_that_hangs_keeps_no_member_from_the_mesh() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(dir.path(), &[(205, "hangs.example:1")]).await;
        let (keys, any) = (Keys::generate().unwrap(), "127.0.0.1:0".parse().unwrap());
        let link = MeshLink::start(&keys, cluster().plan(), MeshIndex::LIGHTHOUSE, any).unwrap();
        let hangs: others::Resolve = |_| Box::pin(std::future::pending());
        let running = link
            .clone()
            .keep_with(registry.clone(), identity().key, hangs);
        let running = tokio::spawn(running);
        let grant = grant("g1", 50, 1);
        let grant = holdfast_core::grant::Grant {
            not_after: crate::unix_now() + 3600,
            ..grant
        };
        registry
            .put_grant(&grant.id, granted(&grant))
            .await
            .unwrap();
        let record = record(1, "n1", 16, &grant);
        let member = member(&record, &grant, 50);
        registry.join(&member, key(1).public()).await.unwrap();
        let there = async {
            while !link
                .handle
                .status()
                .iter()
                .any(|s| s.public_key == record.mesh_key)
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), there).await.unwrap();
        running.abort();
    }
}
