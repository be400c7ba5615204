//! The node's account of itself, signed, on every change and every half minute.

use super::counter::{Counter, Later};
use super::pace::Pace;
use crate::meshed;
use crate::node::Node;
use crate::notes::Notes;
use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::signed::Signed;
use holdfast_core::status::{NodeStatus, SystemMemory};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is sent without a change.
const EVERY: Duration = Duration::from_secs(30);
/// Changes come in bursts.
const SETTLE: Duration = Duration::from_millis(200);
/// So many changes are told as they come, then one in [`EVERY`]: a lighthouse can cause them.
const BURST: u32 = 20;
/// So long the others' answers are waited for; what comes later is heard with the next account.
const PATIENCE: Duration = Duration::from_secs(5);

/// The running system's uptime in seconds.
fn uptime() -> u64 {
    std::fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|t| t.split('.').next().and_then(|s| s.parse().ok()))
        .unwrap_or(0)
}

/// `VmRSS` in the text of a `/proc/PID/status`, in KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn memory() -> Option<SystemMemory> {
    let of = |path| resident(&std::fs::read_to_string(path).ok()?);
    Some(SystemMemory {
        init_kib: of("/proc/1/status")?,
        agent_kib: of("/proc/self/status")?,
    })
}

/// What the node says of itself now.
///
/// # Errors
/// Before the join, or when init does not answer.
pub async fn account(node: &Node, counter: u64) -> anyhow::Result<NodeStatus> {
    let doc = node.store.get();
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let now = node.init.boot().await?;
    let mut notes = now.notes;
    notes.extend(node.notes.all());
    Ok(NodeStatus {
        cluster: admission.cluster_id,
        name: admission.name.clone(),
        role: admission.role,
        index: admission.index,
        counter,
        uptime: uptime(),
        boot: now.boot,
        k3s: *node.k3s.borrow(),
        k3s_info: node.image.k3s.clone(),
        handshake_age: meshed::handshake_age(node),
        memory: memory(),
        documents: node.trusted_in(&doc).ok().map(|t| t.generations()),
        notes,
    })
}

/// A lighthouse, as far as accounts go.
#[derive(Clone)]
struct To {
    /// Names it in notes.
    name: String,
    client: Arc<LighthouseClient>,
}

/// What one lighthouse said to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Taken,
    /// It has one with this number.
    Held(u64),
    Failed,
}

/// Calls under way, each with whom it goes to: one that hangs keeps no other waiting.
struct Calls<K> {
    running: FuturesUnordered<BoxFuture<'static, (K, Said)>>,
    to: Vec<K>,
    /// When each was called last.
    called: Vec<(K, Instant)>,
}

impl<K> Default for Calls<K> {
    fn default() -> Self {
        Self {
            running: FuturesUnordered::new(),
            to: vec![],
            called: vec![],
        }
    }
}

impl<K: Clone + PartialEq + Send + 'static> Calls<K> {
    /// Calls those to whom no call is under way: whom.
    fn begin(
        &mut self,
        to: Vec<K>,
        call: impl Fn(&K) -> BoxFuture<'static, Said>,
        now: Instant,
    ) -> Vec<K> {
        self.called.retain(|(key, _)| to.contains(key));
        let mut begun = to;
        begun.retain(|key| !self.to.contains(key));
        for key in begun.iter().cloned() {
            self.called.retain(|(k, _)| *k != key);
            self.called.push((key.clone(), now));
            self.to.push(key.clone());
            let said = call(&key);
            self.running.push(said.map(|said| (key, said)).boxed());
        }
        begun
    }

    /// What was said by now, and what those of `begun` say in `patience`.
    async fn hear(&mut self, begun: &[K], patience: Duration) -> Vec<(K, Said)> {
        let mut heard = vec![];
        let all = async {
            while begun.iter().any(|k| self.to.contains(k))
                && let Some((key, said)) = self.running.next().await
            {
                self.to.retain(|k| *k != key);
                heard.push((key, said));
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
        while let Some(Some((key, said))) = self.running.next().now_or_never() {
            self.to.retain(|k| *k != key);
            heard.push((key, said));
        }
        heard
    }

    /// Whether one of these was not called for [`EVERY`].
    fn lacks(&self, of: &[K], now: Instant) -> bool {
        let lately = |key: &K| {
            let mut called = self.called.iter();
            called.any(|(k, at)| k == key && now.duration_since(*at) < EVERY)
        };
        of.iter().any(|key| !lately(key))
    }
}

impl PartialEq for To {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client, &other.client)
    }
}

/// Sends accounts for ever.
pub async fn run(node: Arc<Node>) {
    let mut counter = Counter::stored(&node.store.get());
    let mut others = node.posts.subscribe();
    let mut calls = Calls::default();
    let mut pace = Pace::new(BURST, EVERY, Instant::now());
    loop {
        match send(&node, &mut counter, &mut calls).await {
            Ok(said) => judge(&node.notes, &mut counter, &said, Instant::now()),
            Err(e) => tracing::debug!("no account is given: {e:#}"),
        }
        let next = tokio::time::Instant::now() + EVERY;
        let changed = async {
            loop {
                tokio::select! {
                    () = node.changed.notified() => return,
                    () = node.notes.changed() => return,
                    // One that comes and goes gets no more of them.
                    Ok(()) = others.changed() => {
                        if calls.lacks(&answering(&node), Instant::now()) {
                            return;
                        }
                    }
                }
            }
        };
        if tokio::time::timeout_at(next, changed).await.is_ok() {
            let pause = pace.pause(Instant::now()).max(SETTLE);
            tokio::time::sleep(pause).await;
        }
    }
}

fn judge(notes: &Notes, counter: &mut Counter, said: &[(To, Said)], now: Instant) {
    let taken = said.iter().any(|(_, said)| *said == Said::Taken);
    let mut latest = None;
    for (to, said) in said {
        match said {
            Said::Taken => notes.clear_of("status", &to.name),
            Said::Held(held) if counter.made_up(*held) => {
                notes.set_of("status", &to.name, format!("lighthouse {} refuses this node's accounts and says that it has number {held}, which no node comes to: look after the lighthouse", to.name));
            }
            Said::Held(held) => latest = latest.max(Some(*held)),
            Said::Failed => {}
        }
    }
    let Some(held) = latest else { return };
    match counter.catch_up(held, taken, now) {
        Later::Restored => {}
        Later::Outvoted => tracing::info!("a lighthouse has account {held} of this node; another took a lower number"),
        Later::Twin => {
            if notes.set("twin", "another machine gives accounts of this node with its keys: one of the two disks is a copy; give it a seed made with holdfast seed new --rejoin") {
                crate::console::say("another machine uses this node's keys");
            }
        }
    }
}

/// Who is told: operators ask whichever they reach.
fn answering(node: &Node) -> Vec<To> {
    let posts = node.posts.answering();
    let to = posts.iter().map(|post| To {
        name: post.name(),
        client: post.client.clone(),
    });
    to.collect()
}

async fn send(
    node: &Node,
    counter: &mut Counter,
    calls: &mut Calls<To>,
) -> anyhow::Result<Vec<(To, Said)>> {
    let first = super::active(node).await;
    let count = counter.take(&node.store).await?;
    let status = account(node, count).await?;
    let doc = node.store.get();
    let identity = doc.identity.as_ref().context("this node has no keys")?;
    let signed = Arc::new(Signed::sign(&status, &identity.signing)?);
    let mut all = answering(node);
    if all.is_empty() {
        let posts = node.posts.all();
        let post = posts.iter().find(|p| Arc::ptr_eq(&p.client, &first));
        all.push(To {
            name: post.map_or_else(|| first.key().to_string(), |p| p.name()),
            client: first,
        });
    }
    let call = |to: &To| {
        let (client, signed) = (to.client.clone(), signed.clone());
        async move { said(client.put_status(&signed).await) }.boxed()
    };
    let begun = calls.begin(all, call, Instant::now());
    Ok(calls.hear(&begun, PATIENCE).await)
}

fn said(answer: Result<(), ClientError>) -> Said {
    match answer {
        Ok(()) => Said::Taken,
        Err(e) => {
            tracing::debug!("status not sent: {e}");
            e.held().map_or(Said::Failed, Said::Held)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lighthouse_that_hangs_keeps_no_account_from_the_others() {
        let (mut calls, mut told) = (Calls::default(), [0, 0]);
        // Waited for in the first round only.
        for patience in [0, 3600, 3600] {
            let call = |to: &u8| match to {
                0 => std::future::pending().boxed(),
                _ => std::future::ready(Said::Taken).boxed(),
            };
            let begun = calls.begin(vec![0, 1], call, Instant::now());
            for (to, said) in calls.hear(&begun, Duration::from_secs(patience)).await {
                assert_eq!(said, Said::Taken);
                told[usize::from(to)] += 1;
            }
        }
        assert_eq!((told, calls.running.len()), ([0, 3], 1));
        // Who answers late is heard, and told again.
        calls.running.clear();
        let late = std::future::ready((0, Said::Held(7)));
        calls.running.push(late.boxed());
        assert_eq!(calls.hear(&[], PATIENCE).await, [(0, Said::Held(7))]);
        assert!(calls.to.is_empty());
    }

    #[tokio::test]
    async fn a_lighthouse_that_comes_and_goes_gets_no_more_accounts_than_one_that_stays() {
        let mut calls = Calls::default();
        let now = Instant::now();
        assert!(calls.lacks(&[1], now));
        let call = |_: &u8| std::future::ready(Said::Failed).boxed();
        calls.begin(vec![1], call, now);
        assert!(!calls.lacks(&[], now) && !calls.lacks(&[1], now));
        assert!(calls.lacks(&[1, 2], now));
        assert!(calls.lacks(&[1], now + EVERY));
    }

    #[test]
    fn resident_memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(
            super::resident("Name:\tx\nVmRSS:\t    5120 kB\nRssAnon:\t 12 kB\n"),
            Some(5120)
        );
        assert_eq!(super::resident("Name:\tkthreadd\n"), None);
    }
}
