//! The long poll: members and their endpoints, documents, the time.

use super::kept::Keeper;
use super::known::Known;
use super::pace::Pace;
use super::{Post, documents, listed, lost};
use crate::backoff::Backoff;
use crate::disk;
use crate::documents::Trusted;
use crate::node::Node;
use anyhow::Context as _;
use holdfast_client::ClientError;
use holdfast_core::api::{ApiErrorKind, MemberList};
use holdfast_core::keys::PublicKey;
use holdfast_core::state::CachedMember;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long the lighthouse may hold a request; also how often the clock is compared at least.
const WAIT: Duration = Duration::from_secs(50);
/// So many lists are taken as fast as they come,
const BURST: u32 = 60;
/// then one in this time, from one that always has news: each is work, and a member that comes or
/// goes a write to the disk.
const EVERY: Duration = Duration::from_secs(5);

/// One that the seed alone names is asked once nobody else answered for so long.
const ALONE: Duration = Duration::from_secs(5);

/// Asks one lighthouse, until it is given up.
pub async fn run(node: &Node, post: &Arc<Post>, keeper: &Mutex<Keeper>) {
    let mut pauses = Backoff::secs(1, 60);
    let mut pace = Pace::new(BURST, EVERY, Instant::now());
    while !post.is_gone() {
        if post.place.named.is_none() {
            tokio::select! {
                () = needed(node) => {}
                () = post.gone() => return,
            }
        }
        let error = stay(node, post, &mut pauses, &mut pace, keeper).await;
        let why = error.as_ref().map(ToString::to_string);
        node.posts.failed(node, post, why);
        if let Some(error) = &error {
            match lost::follow(node, error).await {
                // Its document names others: they are asked from now on.
                Ok(true) => continue,
                Ok(false) => {}
                Err(e) => tracing::warn!("{e:#}"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.pause()) => {}
            () = post.gone() => return,
        }
    }
}

/// Returns once no lighthouse that the document names has answered for a while.
async fn needed(node: &Node) {
    let mut posts = node.posts.subscribe();
    loop {
        let others = posts.borrow_and_update().iter().any(|p| p.answers());
        if others {
            let _ = posts.changed().await;
            continue;
        }
        tokio::time::sleep(ALONE).await;
        if !posts.borrow().iter().any(|p| p.answers()) {
            return;
        }
    }
}

/// Whether the *lighthouses* document no longer names the one with `key` among others.
fn replaced(node: &Node, key: &PublicKey) -> bool {
    let Ok(trusted) = node.trusted() else {
        return false;
    };
    let named = &trusted.lighthouses.lighthouses;
    !named.is_empty() && !named.iter().any(|l| l.key == *key)
}

/// Stays with one lighthouse until it fails, or until its documents name others in its place.
async fn stay(
    node: &Node,
    post: &Arc<Post>,
    pauses: &mut Backoff,
    pace: &mut Pace,
    keeper: &Mutex<Keeper>,
) -> Option<ClientError> {
    let client = &post.client;
    let mut introduced = false;
    // Zero: a whole list.
    let mut revision = post.told().unwrap_or(0);
    // The first answer comes at once.
    let mut first = true;
    loop {
        let pause = pace.pause(Instant::now());
        let now = std::mem::take(&mut first) || revision == 0;
        let wait = if now { Duration::ZERO } else { WAIT };
        let news = async {
            tokio::time::sleep(pause).await;
            client.news(revision, wait).await
        };
        let list = tokio::select! {
            list = news => list,
            () = post.gone() => return None,
        };
        let list = match list {
            Ok(list) => list,
            Err(e) => {
                if !introduced && lost::introduce(node, client, &e).await {
                    introduced = true;
                    continue;
                }
                failed(node, post, &e);
                return Some(e);
            }
        };
        pauses.reset();
        let asked = std::mem::replace(&mut revision, list.revision);
        if list.since.is_some_and(|since| since != asked) {
            // Not what was asked for: something is missing between.
            revision = 0;
            continue;
        }
        let lasting = list.lasting;
        let name = post.name();
        node.notes.clear_of("membership", &name);
        node.posts.answered(node, post);
        let taken = take(node, keeper, post, list).await;
        if taken.members.is_err() {
            // What changed after this is of no use without it.
            revision = 0;
        }
        post.hold((lasting && revision > 0).then_some(revision));
        match taken.members.and(taken.documents) {
            Ok(()) => node.notes.clear_of("documents", &name),
            Err(e) => {
                let text = format!("the news of lighthouse {name} cannot be taken: {e:#}");
                node.notes.set_of("documents", &name, text);
            }
        }
        if replaced(node, &client.key()) {
            return None;
        }
    }
}

fn failed(node: &Node, post: &Post, error: &ClientError) {
    tracing::warn!(lighthouse = %post.client.key(), "members: {error}");
    // What another lighthouse thinks of this node it says itself.
    let others = node.posts.answering();
    if others.iter().any(|p| !std::ptr::eq(&**p, post)) {
        return;
    }
    let name = post.name();
    let text = match error.kind() {
        Some(ApiErrorKind::Evicted) => format!("this node is evicted, says {name}: {error}"),
        Some(ApiErrorKind::Denied | ApiErrorKind::NotFound) => {
            format!("lighthouse {name} does not know this node: {error}")
        }
        _ => return,
    };
    node.notes.set_of("membership", &name, text);
}

/// What became of an answer.
struct Taken {
    documents: anyhow::Result<()>,
    members: anyhow::Result<()>,
}

async fn take(node: &Node, keeper: &Mutex<Keeper>, post: &Arc<Post>, list: MemberList) -> Taken {
    let generations = || node.trusted().map(|t| t.generations()).ok();
    let before = generations();
    // First the documents: they say whose grants count. What cannot be fetched is fetched later.
    let documents = async {
        node.clock.vouch(list.time).await?;
        if let Some(set) = &list.documents {
            documents::store(node, set).await?;
        }
        documents::bring_forward(node, &post.client, list.generations).await
    };
    let documents = documents.await;
    if generations() != before {
        // An eviction, say, that an operator could hand to this lighthouse alone.
        let members = node.store.get().members.len();
        node.posts.hand_on(post, &[], true, members);
    }
    Taken {
        documents,
        members: take_members(node, keeper, post, list).await,
    }
}

/// Whether the lighthouse's operators, lighthouses or policy are older than this node's.
fn behind([o, l, p, _]: [u64; 4], held: &Trusted) -> bool {
    let offered = [o, l, p].into_iter();
    offered
        .zip(held.generations())
        .any(|(offered, held)| offered < held)
}

async fn take_members(
    node: &Node,
    keeper: &Mutex<Keeper>,
    post: &Arc<Post>,
    list: MemberList,
) -> anyhow::Result<()> {
    // What another lighthouse lists meanwhile waits: both change what is held.
    let mut keeper = keeper.lock().await;
    let doc = node.store.get();
    let trusted = node.trusted()?;
    let (held, known) = (doc.clone(), node.known.clone());
    let whole = list.since.is_none();
    let behind = behind(list.generations, &trusted);
    let leads = node.posts.leads(post);
    let mut kept = disk::blocking(move || {
        let admission = held.admission.as_ref();
        let admission = admission.context("this node has not joined")?;
        let (members, trusted) = (&held.members, &trusted);
        let mut kept = listed::worth_keeping(&list, members, admission, trusted, &known);
        if !leads {
            keep_endpoints(&mut kept.members, members, &known);
        }
        Ok(kept)
    })
    .await?;
    post.lacking.listed(&kept, whole, behind);
    node.posts
        .hand_on(post, &kept.news, false, kept.members.len());
    let name = post.name();
    match &kept.unvouched {
        Some(why) => {
            let text = format!("lighthouse {name} lists members that no grant vouches for: {why}");
            node.notes.set_of("members", &name, text);
        }
        None => node.notes.clear_of("members", &name),
    }
    // An empty list from a lighthouse that lost its store must not take the peers away.
    if !kept.members.is_empty() {
        let members = std::mem::take(&mut kept.members);
        keeper.keep(&node.store, members, Instant::now()).await?;
    }
    Ok(())
}

/// Where two lighthouses see a member at different places (a NAT with a port for each), the first
/// that answers says which is used: otherwise every list would move it. The others fill in.
fn keep_endpoints(fresh: &mut [CachedMember], held: &[CachedMember], known: &Known) {
    let key = |m: &CachedMember| Some(known.open(&m.member).ok()?.record.signing_key);
    let held: BTreeMap<_, _> = held
        .iter()
        .filter_map(|m| Some((key(m)?, m.endpoint?)))
        .collect();
    for member in fresh {
        let at = key(member).and_then(|key| held.get(&key));
        member.endpoint = at.copied().or(member.endpoint);
    }
}
