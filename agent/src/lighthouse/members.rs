//! The long poll: members and their endpoints, documents, the time.

use super::kept::Keeper;
use super::{clients, documents, listed, lost};
use crate::backoff::Backoff;
use crate::disk;
use crate::documents::Trusted;
use crate::node::Node;
use anyhow::Context as _;
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::{ApiErrorKind, MemberList};
use holdfast_core::keys::PublicKey;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the lighthouse may hold a request; also how often the clock is compared at least.
const WAIT: Duration = Duration::from_secs(50);
/// So many lists are taken as fast as they come,
const BURST: u32 = 60;
/// then one in this time: each is work, and a member that comes or goes a write to the disk.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps a lighthouse that always has news from wearing the node out.
struct Pace {
    left: u32,
    filled: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            filled: now,
        }
    }

    /// How long to wait before asking again.
    fn pause(&mut self, now: Instant) -> Duration {
        while self.left < BURST && now.duration_since(self.filled) >= EVERY {
            self.left += 1;
            self.filled += EVERY;
        }
        if self.left == BURST {
            self.filled = now;
        }
        if self.left > 0 {
            self.left -= 1;
            return Duration::ZERO;
        }
        let wait = EVERY.saturating_sub(now.duration_since(self.filled));
        self.filled += EVERY;
        wait
    }
}

/// Which lighthouse's list is held, at which revision: after an interruption, or its restart, it tells
/// the difference only.
type Told = Option<(PublicKey, u64)>;

/// Why a lighthouse is asked no more.
enum Left {
    /// It fails.
    Failed(ClientError),
    /// Its documents name others in its place.
    Replaced,
    /// This machine moved to another network: connections are begun anew.
    Moved,
}

/// Asks one lighthouse after the other, for ever.
pub async fn run(node: Arc<Node>) {
    let mut moves = node.roamed.subscribe();
    let mut fresh = None;
    let mut pauses = Backoff::secs(1, 60);
    let mut pace = Pace::new(Instant::now());
    let mut keeper = Keeper::default();
    let mut told = None;
    loop {
        match fresh.take().unwrap_or_else(|| clients(&node.store.get())) {
            Ok(all) => {
                for client in all {
                    let left = stay(
                        &node,
                        client,
                        &mut moves,
                        &mut pauses,
                        &mut pace,
                        &mut keeper,
                        &mut told,
                    )
                    .await;
                    match &left {
                        Left::Replaced => break,
                        Left::Moved => {
                            fresh = Some(anew(&node));
                            break;
                        }
                        Left::Failed(error) => match lost::follow(&node, error).await {
                            Ok(true) => break,
                            Ok(false) => {}
                            Err(e) => tracing::warn!("{e:#}"),
                        },
                    }
                }
            }
            Err(e) => {
                node.notes
                    .set("lighthouse", format!("no lighthouse can be asked: {e:#}"));
            }
        }
        if fresh.is_some() {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.pause()) => {}
            // A network that came up is worth an attempt at once.
            Ok(()) = moves.changed() => {
                pauses.reset();
                fresh = Some(anew(&node));
            }
        }
    }
}

/// Clients without connections, the one in use first. It takes its place before it has answered:
/// whatever hangs on it is begun anew, as connections from another network lead nowhere, and would be
/// missed for a minute only when they are silent for too long.
fn anew(node: &Node) -> anyhow::Result<Vec<Arc<LighthouseClient>>> {
    let mut all = clients(&node.store.get())?;
    node.lighthouse.send_if_modified(|current| {
        let Some(key) = current.as_ref().map(|c| c.key()) else {
            return false;
        };
        all.sort_by_key(|c| c.key() != key);
        let same = all.first().filter(|c| c.key() == key);
        *current = same.cloned().or(current.take());
        same.is_some()
    });
    Ok(all)
}

/// Whether the *lighthouses* document no longer names the one with `key` among others.
fn replaced(node: &Node, key: &PublicKey) -> bool {
    let Ok(trusted) = node.trusted() else {
        return false;
    };
    let named = &trusted.lighthouses.lighthouses;
    !named.is_empty() && !named.iter().any(|l| l.key == *key)
}

/// Stays with one lighthouse for as long as may be.
async fn stay(
    node: &Node,
    client: Arc<LighthouseClient>,
    moves: &mut watch::Receiver<u64>,
    pauses: &mut Backoff,
    pace: &mut Pace,
    keeper: &mut Keeper,
    told: &mut Told,
) -> Left {
    let mut introduced = false;
    // Zero: a whole list.
    let mut revision = told
        .filter(|(key, _)| *key == client.key())
        .map_or(0, |(_, revision)| revision);
    // The first answer comes at once.
    let mut first = true;
    loop {
        tokio::time::sleep(pace.pause(Instant::now())).await;
        let now = std::mem::take(&mut first) || revision == 0;
        let wait = if now { Duration::ZERO } else { WAIT };
        let answer = tokio::select! {
            answer = client.news(revision, wait) => answer,
            Ok(()) = moves.changed() => return Left::Moved,
        };
        let list = match answer {
            Ok(list) => list,
            Err(e) => {
                if !introduced && lost::introduce(node, &client, &e).await {
                    introduced = true;
                    continue;
                }
                failed(node, &e);
                return Left::Failed(e);
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
        node.notes.clear("lighthouse");
        node.notes.clear("membership");
        node.lighthouse.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|c| Arc::ptr_eq(c, &client));
            *current = Some(client.clone());
            !same
        });
        let taken = take(node, keeper, &client, list).await;
        if taken.members.is_err() {
            // What changed after this is of no use without it.
            revision = 0;
        }
        *told = (lasting && revision > 0).then(|| (client.key(), revision));
        match taken.members.and(taken.documents) {
            Ok(()) => node.notes.clear("documents"),
            Err(e) => {
                let text = format!("the lighthouse's news cannot be taken: {e:#}");
                node.notes.set("documents", text);
            }
        }
        if replaced(node, &client.key()) {
            return Left::Replaced;
        }
    }
}

fn failed(node: &Node, error: &ClientError) {
    match error.kind() {
        Some(ApiErrorKind::Evicted) => {
            node.notes
                .set("membership", format!("this node is evicted: {error}"));
        }
        Some(ApiErrorKind::Denied | ApiErrorKind::NotFound) => {
            node.notes.set(
                "membership",
                format!("the lighthouse does not know this node: {error}"),
            );
        }
        _ => {}
    }
    if node.notes.set("lighthouse", error.to_string()) {
        tracing::warn!("members: {error}");
    }
}

/// What became of an answer.
struct Taken {
    documents: anyhow::Result<()>,
    members: anyhow::Result<()>,
}

async fn take(
    node: &Node,
    keeper: &mut Keeper,
    client: &LighthouseClient,
    list: MemberList,
) -> Taken {
    // First the documents: they say whose grants count. What cannot be fetched is fetched later.
    let documents = async {
        node.clock.vouch(list.time).await?;
        if let Some(set) = &list.documents {
            documents::store(node, set).await?;
        }
        documents::bring_forward(node, client, list.generations).await
    };
    Taken {
        documents: documents.await,
        members: take_members(node, keeper, list).await,
    }
}

/// Whether the lighthouse's operators, lighthouses or policy are older than this node's.
fn behind([o, l, p, _]: [u64; 4], held: &Trusted) -> bool {
    let offered = [o, l, p].into_iter();
    offered
        .zip(held.generations())
        .any(|(offered, held)| offered < held)
}

async fn take_members(node: &Node, keeper: &mut Keeper, list: MemberList) -> anyhow::Result<()> {
    let doc = node.store.get();
    let trusted = node.trusted()?;
    let (held, known) = (doc.clone(), node.known.clone());
    let whole = list.since.is_none();
    let behind = behind(list.generations, &trusted);
    let kept = disk::blocking(move || {
        let admission = held.admission.as_ref();
        let admission = admission.context("this node has not joined")?;
        let (members, trusted) = (&held.members, &trusted);
        Ok(listed::worth_keeping(
            &list, members, admission, trusted, &known,
        ))
    })
    .await?;
    node.lacking.listed(&kept, whole, behind);
    match &kept.unvouched {
        Some(why) => {
            let text = format!("the lighthouse lists members that no grant vouches for: {why}");
            node.notes.set("members", text);
        }
        None => node.notes.clear("members"),
    }
    // An empty list from a lighthouse that lost its store must not take the peers away.
    if !kept.members.is_empty() {
        keeper
            .keep(&node.store, kept.members, Instant::now())
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lighthouse_that_always_has_news_is_asked_less_often() {
        let begin = Instant::now();
        let (mut pace, mut now, mut asked) = (Pace::new(begin), begin, 0);
        while now < begin + Duration::from_secs(3600) {
            now += pace.pause(now) + Duration::from_millis(1);
            asked += 1;
        }
        assert!((700..800).contains(&asked), "{asked}");
        now += Duration::from_secs(3600);
        assert_eq!(pace.pause(now), Duration::ZERO);
        assert_eq!(pace.left, BURST - 1);
    }
}
