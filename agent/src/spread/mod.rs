//! Members hand each other what the roots signed, so that an eviction reaches also whom no
//! lighthouse reaches, as soon as it meets any member.
//!
//! On the control port, inside TLS between the two members' keys, with a protocol id of its own: the
//! one that calls names the generations that it holds, the other answers with its own and, where one
//! is newer, its documents; then the first may send its own. What came is checked as from a
//! lighthouse: a root's signature, and a generation that never goes back. Called are members with a
//! session: when it is new, when a document changed here, and every ten minutes; and while no
//! lighthouse answers, one member after the other, session or not.

mod calls;

use crate::control::frames::{FrameError, Frames};
use crate::lighthouse::{documents, known::Known};
use crate::node::{self, Node};
use anyhow::{Context as _, ensure};
use calls::{Calls, Other};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holdfast_core::cluster::CONTROL_PORT;
use holdfast_core::documents::DocumentSet;
use holdfast_core::keys::PublicKey;
use holdfast_core::state::StateDoc;
use holdfast_tls::Identity;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// TLS ALPN protocol id (RFC 7301).
pub const ALPN: &[u8] = b"holdfast-news/1";
/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often sessions are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A member is not called again before this, whatever changed; one that calls more often gets no answer.
const LEAST: Duration = Duration::from_secs(5);
/// Exchanges at a time.
const AT_ONCE: usize = 4;

/// Operators, lighthouses, policy.
type Generations = [u64; 3];

/// What the caller says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    generations: Generations,
}

/// What the other answers.
#[derive(Debug, Serialize, Deserialize)]
struct News {
    generations: Generations,
    documents: Option<Box<DocumentSet>>,
}

fn newer(than: Generations, held: Generations) -> bool {
    held.iter().zip(than).any(|(held, than)| *held > than)
}

/// The caller's half; what the other has that is newer.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
    held: &DocumentSet,
    generations: Generations,
) -> Result<Option<Box<DocumentSet>>, FrameError> {
    frames.write(&Hello { generations }).await?;
    let news: News = frames.read().await?;
    if newer(news.generations, generations) {
        frames.write(held).await?;
    }
    Ok(news.documents)
}

/// The other half; what the caller has that is newer.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
    held: &DocumentSet,
    generations: Generations,
) -> Result<Option<Box<DocumentSet>>, FrameError> {
    let hello: Hello = frames.read().await?;
    let documents = newer(hello.generations, generations).then(|| Box::new(held.clone()));
    let news = News {
        generations,
        documents,
    };
    frames.write(&news).await?;
    if newer(generations, hello.generations) {
        return frames.read().await.map(Some);
    }
    Ok(None)
}

/// All other members in good standing.
fn others(doc: &StateDoc, known: &Known) -> anyhow::Result<Vec<Other>> {
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let own = admission.index;
    let (trusted, plan) = (node::trusted(doc)?, node::plan(admission));
    let members = doc.members.iter().filter_map(|m| {
        let opened = known.open(&m.member).ok()?;
        let stands = opened.stands(admission.cluster_id, &trusted.operators, &trusted.policy);
        let record = stands.is_ok().then_some(&opened.record)?;
        (record.index != own).then(|| Other {
            signing: record.signing_key,
            mesh: record.mesh_key,
            at: plan.address4(record.index),
        })
    });
    Ok(members.collect())
}

/// Who called last when.
#[derive(Debug, Default)]
pub struct Callers(Mutex<BTreeMap<PublicKey, Instant>>);

impl Callers {
    /// Whether `key` is answered; members only ever get in here, so there are not many.
    fn allow(&self, key: PublicKey, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.saturating_duration_since(*at) < LEAST);
        let fresh = !last.contains_key(&key);
        if fresh {
            last.insert(key, now);
        }
        fresh
    }
}

/// Serves a member that called with `key`.
///
/// # Errors
/// It is no member, calls too often, or does not keep to the protocol.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    stream: S,
    key: PublicKey,
) -> anyhow::Result<()> {
    let doc = node.store.get();
    let members = others(&doc, &node.known)?;
    ensure!(
        members.iter().any(|m| m.signing == key),
        "{key} is no member"
    );
    ensure!(
        node.callers.allow(key, Instant::now()),
        "{key} calls too often"
    );
    let held = doc.documents.as_ref().context("no documents")?;
    let generations = node.trusted_in(&doc)?.generations();
    let mut frames = Frames::new(stream);
    let exchange = answer(&mut frames, held, generations);
    let news = tokio::time::timeout(PATIENCE, exchange).await??;
    if let Some(set) = news {
        documents::store(node, &set).await?;
    }
    frames.end().await
}

async fn call(node: &Node, other: Other) -> anyhow::Result<()> {
    let doc = node.store.get();
    let identity = doc.identity.as_ref().context("this node has no keys")?;
    let held = doc.documents.as_ref().context("no documents")?;
    let generations = node.trusted_in(&doc)?.generations();
    let tls = Identity::from_key(&identity.signing)?;
    let config = holdfast_tls::client_config(Some(&tls), other.signing, &[ALPN])?;
    let exchange = async {
        let stream = TcpStream::connect((other.at, CONTROL_PORT)).await?;
        let mut frames = Frames::new(holdfast_tls::connect(stream, config).await?);
        let news = ask(&mut frames, held, generations).await?;
        // The other end has taken what it was sent.
        let _ = frames.end().await;
        anyhow::Ok(news)
    };
    if let Some(set) = tokio::time::timeout(PATIENCE, exchange).await?? {
        tracing::info!(peer = %other.signing, "a member has newer documents");
        documents::store(node, &set).await?;
    }
    Ok(())
}

/// Runs for ever.
pub async fn run(node: Arc<Node>) {
    let mut calls = Calls::default();
    let mut under_way = FuturesUnordered::new();
    let mut members: Option<(Arc<StateDoc>, Vec<Other>)> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Some((member, heard)) = under_way.next() => {
                calls.ended(member, heard);
                continue;
            }
        }
        let (doc, mesh) = (node.store.get(), node.mesh.borrow().clone());
        let (Some(mesh), Ok(trusted)) = (mesh, node.trusted_in(&doc)) else {
            continue;
        };
        if !members
            .as_ref()
            .is_some_and(|(of, _)| Arc::ptr_eq(of, &doc))
        {
            let Ok(all) = others(&doc, &node.known) else {
                continue;
            };
            members = Some((doc.clone(), all));
        }
        let Some((_, all)) = &members else { continue };
        let status = mesh.status();
        let sessions: BTreeSet<_> = status
            .iter()
            .filter(|s| s.last_handshake.is_some())
            .map(|s| s.public_key)
            .collect();
        let lighthouses = &trusted.lighthouses.lighthouses;
        let alone = !lighthouses.iter().any(|l| sessions.contains(&l.mesh_key));
        let held = trusted.generations();
        if under_way.len() >= AT_ONCE {
            continue;
        }
        for other in calls.due(all, &sessions, alone, held, Instant::now()) {
            let node = node.clone();
            under_way.push(async move {
                let done = call(&node, other).await;
                if let Err(e) = &done {
                    tracing::debug!(peer = %other.signing, "no exchange of documents: {e:#}");
                }
                (other.mesh, done.is_ok())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::{CLUSTER, key, set};
    use crate::documents::{Trusted, merge};
    use holdfast_core::documents::{Policy, Roots};
    use holdfast_core::signed::Signed;

    fn opened(set: &DocumentSet) -> Trusted {
        Trusted::open(set, &Roots(vec![key(7).public()]), CLUSTER).unwrap()
    }

    /// Both ends exchange; what each holds afterwards.
    async fn exchanged(caller: DocumentSet, other: DocumentSet) -> [Trusted; 2] {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (mut near, mut far) = (Frames::new(near), Frames::new(far));
        let roots = Roots(vec![key(7).public()]);
        let (to_caller, to_other) = tokio::join!(
            ask(&mut near, &caller, opened(&caller).generations()),
            answer(&mut far, &other, opened(&other).generations()),
        );
        let taken = |held: &DocumentSet, news: Option<Box<DocumentSet>>| match news {
            Some(news) => merge(Some(held), &news, &roots, CLUSTER).unwrap().trusted,
            None => opened(held),
        };
        [
            taken(&caller, to_caller.unwrap()),
            taken(&other, to_other.unwrap()),
        ]
    }

    #[tokio::test]
    async fn whoever_calls_both_know_of_the_eviction_afterwards() {
        let evicting = |generation| {
            let policy = Policy {
                evicted: vec![key(3).public()],
                ..opened(&set(generation, 7)).policy
            };
            DocumentSet {
                policy: Signed::sign(&policy, &key(7)).unwrap(),
                ..set(1, 7)
            }
        };
        for [caller, other] in [[set(1, 7), evicting(2)], [evicting(2), set(1, 7)]] {
            for after in exchanged(caller, other).await {
                assert_eq!(after.policy.evicted, [key(3).public()]);
            }
        }
        // Each has something that the other has not.
        let newer_operators = DocumentSet {
            operators: set(9, 7).operators,
            ..set(1, 7)
        };
        for after in exchanged(newer_operators, evicting(2)).await {
            assert_eq!(after.generations(), [9, 1, 2]);
        }
    }

    #[test]
    fn a_member_that_calls_all_the_time_is_answered_now_and_then() {
        let (callers, now) = (Callers::default(), Instant::now());
        let k = |n| key(n).public();
        assert!(callers.allow(k(1), now) && callers.allow(k(2), now));
        assert!(!callers.allow(k(1), now + LEAST / 2));
        assert!(callers.allow(k(1), now + LEAST));
        assert_eq!(callers.0.lock().unwrap().len(), 1);
    }
}
