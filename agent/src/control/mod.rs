//! The control server (decision 9): operators' requests, over the mesh or the standing connection,
//! always inside TLS between the operator's key and the node's.

pub mod frames;
mod probe;
mod verbs;

pub use probe::probe;

use crate::backoff::Backoff;
use crate::forever::forever;
use crate::meshed;
use crate::node::{self, Node};
use crate::spread;
use frames::{FrameError, Frames};
use holdfast_core::cluster::CONTROL_PORT;
use holdfast_core::control::{ALPN, Reply, Request};
use holdfast_core::documents::Operator;
use holdfast_core::keys::PublicKey;
use holdfast_tls::{ClientAuth, Identity};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Streams served at a time for each address of a lighthouse and of this node, so that none takes
/// another's; a Kubernetes client opens several.
const STREAMS: usize = 64;
/// And from members other than lighthouses and this node: operators come through a
/// lighthouse, and no member may take their places.
const STRANGERS: usize = 16;
/// Of these for each address; a member has two.
const PER_STRANGER: usize = 2;
/// How long a peer may take to send its request.
const PATIENCE: Duration = Duration::from_secs(20);

/// Listens on the mesh addresses, for ever.
pub async fn listen(node: Arc<Node>) {
    let doc = node.store.get();
    let Some(admission) = &doc.admission else {
        return;
    };
    let places: Vec<IpAddr> = meshed::addresses(&node::plan(admission), admission.index)
        .iter()
        .map(ipnet::IpNet::addr)
        .collect();
    let slots = Slots::default();
    let all = places.into_iter().map(|ip| {
        let at = SocketAddr::new(ip, CONTROL_PORT);
        forever("control", listen_at(node.clone(), at, slots.clone()))
    });
    futures_util::future::join_all(all).await;
}

/// Places for streams, shared by the addresses that are listened on.
#[derive(Clone)]
struct Slots {
    expected: Pools,
    strangers: Arc<Semaphore>,
    each: Pools,
}

/// A pool for each address.
type Pools = Arc<Mutex<BTreeMap<IpAddr, Arc<Semaphore>>>>;

/// A place for a stream: in its address's pool and, of a stranger, in the one that all share.
struct Slot {
    _own: OwnedSemaphorePermit,
    _shared: Option<OwnedSemaphorePermit>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            expected: Arc::default(),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            each: Arc::default(),
        }
    }
}

impl Slots {
    /// A place for a stream from `from`, if there is one: addresses in the mesh are not forged.
    fn take(&self, expected: &[IpAddr], from: IpAddr) -> Option<Slot> {
        if expected.contains(&from) {
            let mut pools = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            pools.retain(|peer, _| expected.contains(peer));
            return Some(Slot {
                _own: of(&mut pools, from, STREAMS)?,
                _shared: None,
            });
        }
        let mut pools = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| pool.available_permits() < PER_STRANGER);
        Some(Slot {
            _own: of(&mut pools, from, PER_STRANGER)?,
            _shared: Some(self.strangers.clone().try_acquire_owned().ok()?),
        })
    }
}

fn of(
    pools: &mut BTreeMap<IpAddr, Arc<Semaphore>>,
    from: IpAddr,
    most: usize,
) -> Option<OwnedSemaphorePermit> {
    let fresh = || Arc::new(Semaphore::new(most));
    let pool = pools.entry(from).or_insert_with(fresh).clone();
    pool.try_acquire_owned().ok()
}

/// Addresses of the lighthouses and of this node.
fn expected(node: &Node) -> Vec<IpAddr> {
    let doc = node.store.get();
    let (Some(admission), Ok(trusted)) = (&doc.admission, node.trusted_in(&doc)) else {
        return vec![];
    };
    let plan = node::plan(admission);
    let lighthouses = trusted.lighthouses.lighthouses.iter().map(|l| l.index);
    lighthouses
        .chain([admission.index])
        .flat_map(|i| {
            [
                IpAddr::from(plan.address4(i)),
                IpAddr::from(plan.address6(i)),
            ]
        })
        .collect()
}

async fn listen_at(node: Arc<Node>, at: SocketAddr, slots: Slots) {
    let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut mesh = node.mesh.subscribe();
    loop {
        // The address comes with the mesh.
        if mesh.wait_for(Option::is_some).await.is_err() {
            return;
        }
        match TcpListener::bind(at).await {
            Ok(listener) => {
                pauses.reset();
                tracing::info!(%at, "control server");
                loop {
                    match listener.accept().await {
                        Ok((stream, from)) => {
                            let known = expected(&node);
                            let Some(permit) = slots.take(&known, from.ip()) else {
                                tracing::debug!(%from, "no place for another control stream");
                                continue;
                            };
                            let node = node.clone();
                            tokio::spawn(async move {
                                let _ = stream.set_nodelay(true);
                                serve(node, stream, &from.to_string()).await;
                                drop(permit);
                            });
                        }
                        Err(e) => {
                            tracing::warn!(%at, "accepting: {e}");
                            break;
                        }
                    }
                }
            }
            // The address is not there yet, or the mesh begins anew.
            Err(e) => tracing::debug!(%at, "the control server waits: {e}"),
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}

/// Serves one stream.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    node: Arc<Node>,
    stream: S,
    from: &str,
) {
    if let Err(e) = handle(&node, stream, from).await {
        tracing::debug!(from, "control stream: {e:#}");
    }
}

async fn handle<S: AsyncRead + AsyncWrite + Unpin + Send>(
    node: &Arc<Node>,
    stream: S,
    from: &str,
) -> anyhow::Result<()> {
    let doc = node.store.get();
    let identity = doc
        .identity
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("this node has no keys"))?;
    let tls = Identity::from_key(&identity.signing)?;
    let config = holdfast_tls::server_config(&tls, &[ALPN, spread::ALPN], ClientAuth::Required)?;
    let stream = holdfast_tls::accept(stream, config).await?;
    let key = holdfast_tls::peer_key(stream.get_ref().1)
        .ok_or_else(|| anyhow::anyhow!("the peer showed no key"))?;
    if stream.get_ref().1.alpn_protocol() == Some(spread::ALPN) {
        return spread::serve(node, stream, key).await;
    }
    let mut frames = Frames::new(stream);
    let request = match tokio::time::timeout(PATIENCE, frames.read::<Request>()).await {
        Ok(Ok(request)) => request,
        Ok(Err(FrameError::Content(e))) => {
            let message = format!("this node does not understand the request: {e}");
            frames.write(&failed("malformed", message)).await?;
            return Ok(());
        }
        Ok(Err(e)) => return Err(e.into()),
        Err(_) => anyhow::bail!("no request came"),
    };
    match authorise(node, &key, &request) {
        Ok(operator) => {
            tracing::info!(operator = %operator.name, from, verb = request.verb(), "control request");
            let read_only = matches!(
                request,
                Request::Status | Request::Logs { .. } | Request::History
            );
            if !read_only {
                crate::console::say(&format!(
                    "control: {} asks for {}",
                    operator.name,
                    request.verb()
                ));
            }
            verbs::answer(node, &operator, request, &mut frames).await?;
            node.answered.send_replace(true);
        }
        // The node asks itself whether it can be asked: every half minute, and no flash for it.
        Err(refusal) if key == identity.signing.public() => frames.write(&refusal).await?,
        Err(refusal) => {
            tracing::warn!(%key, from, verb = request.verb(), "control request refused");
            frames.write(&refusal).await?;
        }
    }
    frames.end().await
}

fn failed(kind: &str, message: impl Into<String>) -> Reply {
    Reply::Failed {
        kind: kind.into(),
        message: message.into(),
    }
}

/// The operator who may ask this, or the refusal.
fn authorise(node: &Node, key: &PublicKey, request: &Request) -> Result<Operator, Reply> {
    let trusted = node
        .trusted()
        .map_err(|e| failed("unavailable", format!("{e:#}")))?;
    let operator = trusted.operators.by_key(key).ok_or_else(|| {
        failed(
            "denied",
            format!("the key {key} belongs to no operator that this node knows"),
        )
    })?;
    if !trusted.operators.allows(key, request.right()) {
        let right = format!("{:?}", request.right()).to_lowercase();
        return Err(failed(
            "denied",
            format!(
                "{} has not the right {right:?}, which {} takes",
                operator.name,
                request.verb()
            ),
        ));
    }
    Ok(operator.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_cannot_take_the_places_that_operators_need() {
        let slots = Slots::default();
        let [lighthouse, own, other]: [IpAddr; 3] =
            ["10.0.0.1", "10.0.0.17", "10.0.0.16"].map(|a| a.parse().unwrap());
        // One member leaves places for others, and all together for a lighthouse.
        let taken: Vec<_> = std::iter::from_fn(|| slots.take(&[lighthouse], other)).collect();
        assert_eq!(taken.len(), PER_STRANGER);
        let others = (1..100).map(|n| IpAddr::from([10, 0, 1, n]));
        let more: Vec<_> = others
            .filter_map(|o| slots.take(&[lighthouse], o))
            .collect();
        assert_eq!(more.len(), STRANGERS - PER_STRANGER);
        assert!(slots.take(&[lighthouse], lighthouse).is_some());
        drop((taken, more));
        assert!(slots.take(&[lighthouse], other).is_some());
        // Nor may a lighthouse take the self-probe's.
        let known = [lighthouse, own];
        let all: Vec<_> = std::iter::from_fn(|| slots.take(&known, lighthouse)).collect();
        assert_eq!(all.len(), STREAMS);
        assert!(slots.take(&known, own).is_some());
        drop(all);
        assert!(slots.take(&known, lighthouse).is_some());
    }
}
