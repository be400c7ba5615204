//! What the node tells operators of its mesh.

use super::planned::planned;
use crate::disk;
use crate::node::Node;
use anyhow::Context as _;
use holdfast_core::control::{MeshPath, MeshPeer, MeshPing, PathKind};
use holdfast_core::peers::PeerPlan;
use holdfast_mesh::{MeshHandle, PeerStatus, Way};
use std::time::Duration;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

async fn plans(node: &Node) -> anyhow::Result<Vec<PeerPlan>> {
    let doc = node.store.get();
    let trusted = node.trusted_in(&doc)?;
    let lighthouses = trusted.lighthouses.lighthouses.iter().cloned();
    let lighthouses: Vec<_> = lighthouses.map(|l| (l, None)).collect();
    let known = node.known.clone();
    let plans = disk::blocking(move || planned(&doc, &trusted, &known, &lighthouses));
    Ok(plans.await?.peers)
}

fn running(node: &Node) -> anyhow::Result<MeshHandle> {
    let mesh = node.mesh.borrow().clone();
    mesh.context("the mesh does not run on this node")
}

fn path(status: &PeerStatus) -> Option<MeshPath> {
    let way = status.way?;
    Some(MeshPath {
        kind: match way {
            Way::Direct(_) => PathKind::Direct,
            Way::Relayed { .. } => PathKind::Relayed,
        },
        endpoint: Some(way.next_hop()).filter(|_| !way.is_stream()),
        confirmed: status.confirmed,
        rtt: status.rtt.map(micros),
        mtu: status.mtu,
        fragmented: status.narrow,
        loss: status.loss,
    })
}

fn micros(of: Duration) -> u64 {
    u64::try_from(of.as_micros()).unwrap_or(u64::MAX)
}

/// All members that the node knows.
///
/// # Errors
/// When the mesh does not run.
pub async fn peers(node: &Node) -> anyhow::Result<Vec<MeshPeer>> {
    let (plans, status) = (plans(node).await?, running(node)?.status());
    let peers = plans.into_iter().filter_map(|plan| {
        let status = status.iter().find(|s| s.public_key == plan.key)?;
        Some(MeshPeer {
            name: plan.name,
            addresses: plan.allowed_ips,
            path: path(status),
            handshake_age: status.last_handshake.map(|age| age.as_secs()),
            received: status.rx_bytes,
            sent: status.tx_bytes,
        })
    });
    Ok(peers.collect())
}

/// Asks a member once.
///
/// # Errors
/// When there is no such member, or the mesh does not run.
pub async fn ping(node: &Node, member: &str) -> anyhow::Result<MeshPing> {
    let plans = plans(node).await?;
    let plan = plans.iter().find(|p| p.name == member);
    let key = plan
        .with_context(|| format!("this node knows no member {member:?} that it may reach"))?
        .key;
    let mesh = running(node)?;
    let rtt = mesh.ping(key, PATIENCE).await?;
    let status = mesh.status();
    let status = status.iter().find(|s| s.public_key == key);
    Ok(MeshPing {
        rtt: rtt.map(micros),
        path: status.and_then(path),
    })
}
