//! The node's account of itself, signed, on every change and every half minute.

use crate::meshed;
use crate::node::Node;
use crate::notes::Notes;
use crate::store::Store;
use anyhow::Context as _;
use futures_util::future::join_all;
use holdfast_client::ClientError;
use holdfast_core::signed::Signed;
use holdfast_core::state::StateDoc;
use holdfast_core::status::{NodeStatus, SystemMemory};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is sent without a change.
const EVERY: Duration = Duration::from_secs(30);
/// How many counts are reserved on disk at a time, so that not every account is a write.
const RESERVE: u64 = 1000;
/// Further ahead than this no account of this node's, or of its twin's, can be: one in 200 ms for
/// 27 years. Beyond it a lighthouse makes numbers up, and the count would run out.
const AHEAD: u64 = 1 << 32;
/// Changes come in bursts.
const SETTLE: Duration = Duration::from_millis(200);

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

/// Hands out counts that grow over reboots; the stored one is never below any that was used.
struct Counter {
    next: u64,
    reserved: u64,
    /// When the lighthouse last had a later account.
    behind: Option<Instant>,
}

/// Within so long of each other, two later accounts are another machine's.
const TWIN: Duration = Duration::from_secs(3600);

/// What a later account at the lighthouse means.
#[derive(Debug, PartialEq, Eq)]
enum Later {
    /// This node's, from before its state was restored from a backup.
    Restored,
    /// Another machine has the same keys.
    Twin,
    /// Nobody's: no account can be that far ahead.
    MadeUp,
}

impl Counter {
    fn stored(doc: &StateDoc) -> Self {
        Self {
            next: doc.status_counter,
            reserved: doc.status_counter,
            behind: None,
        }
    }

    /// The lighthouse has an account with `held`, later than this node's: after a restored backup
    /// it goes on from there. If that is not the end of it, another machine has the same keys.
    fn catch_up(&mut self, held: u64, now: Instant) -> Later {
        if held > self.next.saturating_add(AHEAD) {
            return Later::MadeUp;
        }
        self.next = self.next.max(held);
        let again = self.behind.is_some_and(|b| now.duration_since(b) < TWIN);
        self.behind = Some(now);
        if again { Later::Twin } else { Later::Restored }
    }

    async fn take(&mut self, store: &Store) -> anyhow::Result<u64> {
        if self.next >= self.reserved && self.reserved < u64::MAX {
            // An older agent may have stored a number from the very end.
            let reserved = self.next.saturating_add(RESERVE);
            store.update(|d| d.status_counter = reserved).await?;
            self.reserved = reserved;
        }
        self.next = self.next.saturating_add(1);
        Ok(self.next)
    }
}

/// Sends accounts for ever.
pub async fn run(node: Arc<Node>) {
    let mut counter = Counter::stored(&node.store.get());
    let mut others = node.posts.subscribe();
    loop {
        match send(&node, &mut counter).await {
            Ok(()) => node.notes.clear("status"),
            Err(e) => {
                tracing::debug!("status not sent: {e:#}");
                let held = e.downcast_ref::<ClientError>().and_then(ClientError::held);
                if let Some(held) = held {
                    judge(&node.notes, held, counter.catch_up(held, Instant::now()));
                }
            }
        }
        tokio::select! {
            () = node.changed.notified() => {}
            () = node.notes.changed() => {}
            Ok(()) = others.changed() => {}
            () = tokio::time::sleep(EVERY) => continue,
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// Tells of a later account that `held` stands for.
fn judge(notes: &Notes, held: u64, later: Later) {
    match later {
        Later::Restored => {}
        Later::Twin => {
            if notes.set("twin", "another machine gives accounts of this node with its keys: one of the two disks is a copy; give it a seed made with holdfast seed new --rejoin") {
                crate::console::say("another machine uses this node's keys");
            }
        }
        Later::MadeUp => {
            notes.set("status", format!("the lighthouse refuses this node's accounts and says that it has number {held}, which no node comes to: look after the lighthouse"));
        }
    }
}

async fn send(node: &Node, counter: &mut Counter) -> anyhow::Result<()> {
    let first = super::active(node).await;
    let count = counter.take(&node.store).await?;
    let status = account(node, count).await?;
    let doc = node.store.get();
    let identity = doc.identity.as_ref().context("this node has no keys")?;
    let signed = Signed::sign(&status, &identity.signing)?;
    let mut all: Vec<_> = node
        .posts
        .answering()
        .iter()
        .map(|p| p.client.clone())
        .collect();
    if all.is_empty() {
        all.push(first);
    }
    // Operators ask whichever they reach.
    let sent = join_all(all.iter().map(|client| client.put_status(&signed))).await;
    sent.into_iter().collect::<Result<(), _>>()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::partition;

    fn counting_from(next: u64) -> Counter {
        Counter::stored(&StateDoc {
            status_counter: next,
            ..StateDoc::default()
        })
    }

    #[test]
    fn a_later_account_is_a_restored_backup_once_and_a_twin_when_it_comes_again() {
        let mut counter = counting_from(5);
        let now = Instant::now();
        assert_eq!(counter.catch_up(2000, now), Later::Restored);
        assert_eq!(counter.next, 2000);
        let soon = now + Duration::from_secs(60);
        assert_eq!(counter.catch_up(2005, soon), Later::Twin);
        assert_eq!(counter.catch_up(2010, soon + TWIN), Later::Restored);
    }

    #[tokio::test]
    async fn no_number_of_a_lighthouse_ends_the_counting_in_this_boot_or_the_next() {
        let disk = partition();
        for made_up in [u64::MAX, u64::MAX - 1500, AHEAD + 5000] {
            let (store, _) = Store::open(disk.path()).await.unwrap();
            let mut counter = Counter::stored(&store.get());
            let before = counter.take(&store).await.unwrap();
            let said = counter.catch_up(made_up, Instant::now());
            assert_eq!(said, Later::MadeUp, "{made_up}");
            assert_eq!(counter.take(&store).await.unwrap(), before + 1);
            let (again, _) = Store::open(disk.path()).await.unwrap();
            assert_eq!(again.get().status_counter, store.get().status_counter);
        }
    }

    #[tokio::test]
    async fn a_number_from_the_end_that_is_stored_already_kills_no_agent() {
        let disk = partition();
        for stored in [u64::MAX, u64::MAX - 1, u64::MAX - 500] {
            let (store, _) = Store::open(disk.path()).await.unwrap();
            store.update(|d| d.status_counter = stored).await.unwrap();
            let mut counter = Counter::stored(&store.get());
            for _ in 0..1000 {
                counter.take(&store).await.unwrap();
            }
        }
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
