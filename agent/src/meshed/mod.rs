//! The mesh as the agent runs it: interface, port, peers, and the handshake that the gate wants.

pub mod account;
mod good;
mod planned;
mod relays;
mod turns;

use crate::backoff::Backoff;
use crate::disk;
use crate::network::Uplinks;
use crate::network::netlink::Netlink;
use crate::node::{self, Node};
use crate::{console, identity};
use anyhow::Context as _;
use holdfast_core::cluster::{AddressPlan, MESH_INTERFACE, MESH_MTU, MESH_PORT, MeshIndex};
use holdfast_core::state::StateDoc;
use holdfast_mesh::{Mesh, MeshHandle, MeshKey, MeshSocket, PeerConfig, Tun};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use planned::{Planned, planned};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use turns::Turns;

/// How often sessions are looked at, with one and without.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(100));
/// How long a mesh that ends may take to give interface and port back.
const END: Duration = Duration::from_secs(5);

/// The mesh addresses of a member, with the mesh's prefixes: on-link, so that a mesh address may
/// also be a gateway.
pub fn addresses(plan: &AddressPlan, index: MeshIndex) -> Vec<IpNet> {
    let v4 = Ipv4Net::new(plan.address4(index), plan.mesh4.prefix_len()).map(IpNet::V4);
    let v6 = Ipv6Net::new(plan.address6(index), plan.mesh6.prefix_len()).map(IpNet::V6);
    v4.into_iter().chain(v6).collect()
}

/// Runs the mesh for ever; the data plane has `runtime` for itself.
pub async fn run(
    node: Arc<Node>,
    netlink: Netlink,
    runtime: tokio::runtime::Handle,
    uplinks: watch::Receiver<Uplinks>,
) {
    let mut pauses = Backoff::secs(1, 30);
    loop {
        match life(&node, &netlink, &runtime, &uplinks).await {
            Ok(never) => match never {},
            Err(e) => {
                node.notes.set("mesh", format!("the mesh is down: {e:#}"));
            }
        }
        node.mesh.send_replace(None);
        tokio::time::sleep(pauses.pause()).await;
    }
}

async fn life(
    node: &Node,
    netlink: &Netlink,
    runtime: &tokio::runtime::Handle,
    uplinks: &watch::Receiver<Uplinks>,
) -> anyhow::Result<std::convert::Infallible> {
    let doc = node.store.get();
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let identity = doc.identity.as_ref().context("this node has no keys")?;
    let key = identity::mesh(identity);
    prepare(netlink).await?;
    let socket = {
        let _inside = runtime.enter();
        bind(doc.mesh_port)?
    };
    let port = socket.port();
    if let Some(port) = new_port(doc.mesh_port, port) {
        node.store.update(|d| d.mesh_port = Some(port)).await?;
    }
    node.clock.before_mesh().await?;
    let handle = runtime
        .spawn(async move { Tun::open(MESH_INTERFACE).map(|tun| Mesh::start(tun, socket, &key)) })
        .await??;
    let (plan, index) = (node::plan(admission), admission.index);
    let work = steer(node, netlink, uplinks, &handle, &plan, index);
    until_its_end(&handle, work).await
}

/// Does `work` with the mesh and ends it. Clones of the handle may live on elsewhere: they must not
/// keep interface and port from the next life.
async fn until_its_end<T>(mesh: &MeshHandle, work: impl Future<Output = T>) -> T {
    let out = work.await;
    if tokio::time::timeout(END, mesh.shutdown()).await.is_err() {
        tracing::warn!("the mesh does not give interface and port back");
    }
    out
}

/// Sets interface, places and peers for as long as the mesh runs.
async fn steer(
    node: &Node,
    netlink: &Netlink,
    uplinks: &watch::Receiver<Uplinks>,
    handle: &MeshHandle,
    plan: &AddressPlan,
    index: MeshIndex,
) -> anyhow::Result<std::convert::Infallible> {
    let (wanted, port) = (addresses(plan, index), handle.port());
    configure(netlink, &wanted).await?;
    node.mesh.send_replace(Some(handle.clone()));
    node.notes.clear("mesh");
    tracing::info!(port, addresses = ?wanted, "mesh started");
    let avoid = avoided(plan);
    let moves = node.roamed.subscribe();
    handle.set_places(places(&uplinks.borrow(), port), avoid.clone());
    tokio::select! {
        why = handle.stopped() => Err(anyhow::anyhow!("{why}")),
        () = node.mesh_anew.notified() => Err(anyhow::anyhow!("it begins anew")),
        e = keep_peers(node, handle) => Err(e),
        e = knock(handle, moves, uplinks, &avoid) => Err(e),
        e = relays::run(node, handle) => Err(e),
        e = good::keep(node, handle) => Err(e),
        e = relays::stand_in(node, handle) => Err(e),
    }
}

/// Networks in which no peer is sought: the mesh's own, pods, services, this machine's.
fn avoided(plan: &AddressPlan) -> Vec<IpNet> {
    let own = [plan.mesh4, plan.pods, plan.services].map(IpNet::V4);
    let here = ["127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10"];
    let here = here.iter().filter_map(|net| net.parse().ok());
    own.into_iter()
        .chain([plan.ula.into()])
        .chain(here)
        .collect()
}

/// This node's own addresses, as peers on the same network reach them.
fn places(uplinks: &Uplinks, port: u16) -> Vec<SocketAddr> {
    let addresses = uplinks.values().flat_map(|u| &u.addresses);
    addresses.map(|a| SocketAddr::new(a.addr(), port)).collect()
}

/// After each of `moves`, lighthouses and peers hear from the new address at once, not when a timer
/// has run down; returns only on an error.
async fn knock(
    mesh: &MeshHandle,
    mut moves: watch::Receiver<u64>,
    uplinks: &watch::Receiver<Uplinks>,
    avoid: &[IpNet],
) -> anyhow::Error {
    while moves.changed().await.is_ok() {
        mesh.set_places(places(&uplinks.borrow(), mesh.port()), avoid.to_vec());
        mesh.knock();
    }
    anyhow::anyhow!("nobody tells of uplinks any more")
}

/// The persistent interface gets its MTU before the mesh attaches to it.
async fn prepare(netlink: &Netlink) -> anyhow::Result<()> {
    if let Some(index) = netlink.index_of(MESH_INTERFACE).await? {
        netlink.up(index, Some(MESH_MTU)).await?;
    }
    Ok(())
}

async fn configure(netlink: &Netlink, wanted: &[IpNet]) -> anyhow::Result<()> {
    let index = netlink
        .index_of(MESH_INTERFACE)
        .await?
        .context("the mesh interface is gone")?;
    netlink.up(index, Some(MESH_MTU)).await?;
    for address in wanted {
        netlink.add_address(index, *address, None).await?;
        // Nobody on the local network routes the mesh's packets past it. Without that it still works.
        if let Err(e) = netlink.prefer(index, *address).await {
            tracing::warn!("{e:#}");
        }
    }
    netlink.keep_addresses(index, wanted, false).await
}

/// The port of before; another one only when it is taken.
fn bind(kept: Option<u16>) -> anyhow::Result<MeshSocket> {
    let first = kept.unwrap_or(MESH_PORT);
    match MeshSocket::bind(first) {
        Ok(socket) => Ok(socket),
        Err(e) => {
            tracing::warn!(port = first, "the mesh's port cannot be had: {e}");
            Ok(MeshSocket::bind(0)?)
        }
    }
}

/// The port to store. One that is stored stays while it is taken: port forwarding and peers' memories
/// hang on it, and it may be free at the next start.
fn new_port(stored: Option<u16>, bound: u16) -> Option<u16> {
    stored.is_none().then_some(bound)
}

fn config(plan: holdfast_core::peers::PeerPlan) -> PeerConfig {
    PeerConfig {
        public_key: plan.key,
        allowed_ips: plan.allowed_ips,
        endpoint: plan.endpoint,
        // A lighthouse must be able to reach the node at any time; others talk when they need to.
        always_on: plan.keepalive.is_some(),
        relay: plan.keepalive.is_some(),
        keepalive: plan.keepalive,
        plain: plan.plain,
    }
}

/// What peers were planned from.
#[derive(Default)]
struct Basis {
    doc: Option<Arc<StateDoc>>,
    endpoints: Vec<Option<SocketAddr>>,
}

impl Basis {
    /// Takes what holds now; true when it is something else.
    fn moved(&mut self, doc: &Arc<StateDoc>, endpoints: Vec<Option<SocketAddr>>) -> bool {
        let same = self.doc.as_ref().is_some_and(|d| Arc::ptr_eq(d, doc));
        if same && self.endpoints == endpoints {
            return false;
        }
        *self = Self {
            doc: Some(doc.clone()),
            endpoints,
        };
        true
    }
}

/// Keeps the peers as documents, members and addresses say; returns only on an error.
async fn keep_peers(node: &Node, mesh: &MeshHandle) -> anyhow::Error {
    let mut changes = node.store.subscribe();
    let mut turns = Turns::default();
    let mut basis = Basis::default();
    let mut applied = Planned::default();
    let mut up = false;
    loop {
        let doc = changes.borrow_and_update().clone();
        let trusted = match node.trusted_in(&doc) {
            Ok(trusted) => trusted,
            Err(e) => return e,
        };
        let status = mesh.status();
        let session = |key: &MeshKey| {
            status
                .iter()
                .any(|s| s.public_key == *key && s.last_handshake.is_some())
        };
        let lighthouses = &trusted.lighthouses.lighthouses;
        tell_up(
            node,
            &mut up,
            lighthouses.iter().any(|l| session(&l.mesh_key)),
        );
        let now = Instant::now();
        let endpoints: Vec<_> = lighthouses
            .iter()
            .map(|l| {
                // A session over a stream is none by UDP: other addresses are tried.
                let udp = mesh.without_udp(l.mesh_key).is_none();
                turns.endpoint(l, session(&l.mesh_key) && udp, now)
            })
            .collect();
        if basis.moved(&doc, endpoints.clone()) {
            let lighthouses: Vec<_> = lighthouses.iter().cloned().zip(endpoints).collect();
            // Many signatures are checked: not on the event loop.
            let kept = doc.clone();
            let known = node.known.clone();
            let plan = disk::blocking(move || planned(&doc, &trusted, &known, &lighthouses));
            match plan.await {
                Ok(plan) if plan != applied => {
                    for why in &plan.refused {
                        tracing::warn!("a member is refused: {why}");
                    }
                    mesh.set_access(plan.rules.clone());
                    let peers: Vec<_> = plan.peers.iter().cloned().map(config).collect();
                    if let Err(e) = mesh.set_peers(&peers) {
                        tracing::error!("peers cannot be set: {e}");
                    }
                    good::recall(&kept, mesh);
                    applied = plan;
                }
                Ok(_) => {}
                Err(e) => return e,
            }
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() { return anyhow::anyhow!("the state is gone"); }
            }
            () = turns.changed() => {}
            () = tokio::time::sleep(if up { LOOK.0 } else { LOOK.1 }) => {}
        }
    }
}

/// Tells of a session with a lighthouse that came or went.
fn tell_up(node: &Node, up: &mut bool, now: bool) {
    if now == *up {
        return;
    }
    *up = now;
    if now {
        console::say("mesh up");
        node.handshake.send_replace(true);
        node.notes.clear("session");
    } else {
        node.notes
            .set("session", "no mesh session with a lighthouse");
    }
    node.changed.notify_one();
}

/// Seconds since the last handshake with any lighthouse.
pub fn handshake_age(node: &Node) -> Option<u64> {
    let mesh = node.mesh.borrow().clone()?;
    let trusted = node.trusted().ok()?;
    let keys: Vec<MeshKey> = trusted
        .lighthouses
        .lighthouses
        .iter()
        .map(|l| l.mesh_key)
        .collect();
    mesh.status()
        .iter()
        .filter(|s| keys.contains(&s.public_key))
        .filter_map(|s| s.last_handshake)
        .map(|age| age.as_secs())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_planned_anew_only_for_another_document_or_address() {
        let (doc, mut basis) = (Arc::new(StateDoc::default()), Basis::default());
        assert!(basis.moved(&doc, vec![None]));
        assert!(!basis.moved(&doc.clone(), vec![None]));
        assert!(basis.moved(&doc, vec!["192.0.2.1:1".parse().ok()]));
        assert!(basis.moved(
            &Arc::new(StateDoc::default()),
            vec!["192.0.2.1:1".parse().ok()]
        ));
    }

    #[tokio::test]
    async fn a_life_that_failed_leaves_its_port_to_the_next() {
        let socket = MeshSocket::bind(0).unwrap();
        let port = socket.port();
        let (_stack, device) =
            holdfast_mesh::Netstack::new(&["100.64.0.9/32".parse().unwrap()], 1380).unwrap();
        let key = holdfast_mesh::MeshPrivateKey::from_bytes([9; 32]);
        let handle = Mesh::start(device, socket, &key);
        // A ping under way, say.
        let _elsewhere = handle.clone();
        let failed = async { anyhow::bail!("no interface") };
        let end: anyhow::Result<()> = until_its_end(&handle, failed).await;
        assert!(end.is_err());
        assert_eq!(bind(Some(port)).unwrap().port(), port);
    }

    #[test]
    fn a_port_that_another_program_holds_for_once_is_not_given_up() {
        let taken = MeshSocket::bind(0).unwrap();
        let other = bind(Some(taken.port())).unwrap();
        assert_ne!(other.port(), taken.port());
        assert_eq!(new_port(Some(taken.port()), other.port()), None);
        assert_eq!(new_port(None, other.port()), Some(other.port()));
    }

    #[test]
    fn addresses_carry_the_meshs_prefix() {
        let plan = AddressPlan::new(holdfast_core::cluster::ClusterId([3; 16]), false);
        let all = addresses(&plan, MeshIndex::FIRST_NODE);
        assert_eq!(
            all.iter().map(IpNet::prefix_len).collect::<Vec<_>>(),
            [20, 64]
        );
        assert!(all[0].contains(&std::net::IpAddr::V4(plan.address4(MeshIndex::LIGHTHOUSE))));
    }
}
