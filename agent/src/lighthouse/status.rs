//! The node's account of itself, signed, on every change and every half minute.

use crate::meshed;
use crate::node::Node;
use anyhow::Context as _;
use holdfast_client::ClientError;
use holdfast_core::signed::Signed;
use holdfast_core::status::{NodeStatus, SystemMemory};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is sent without a change.
const EVERY: Duration = Duration::from_secs(30);
/// How many counts are reserved on disk at a time, so that not every account is a write.
const RESERVE: u64 = 1000;
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

impl Counter {
    /// The lighthouse has an account with `held`, later than this node's: after a restored backup
    /// it goes on from there. If that is not the end of it, another machine has the same keys.
    fn catch_up(&mut self, held: u64, now: Instant) -> bool {
        self.next = self.next.max(held);
        let again = self.behind.is_some_and(|b| now.duration_since(b) < TWIN);
        self.behind = Some(now);
        again
    }

    async fn take(&mut self, node: &Node) -> anyhow::Result<u64> {
        if self.next >= self.reserved {
            let reserved = self.next + RESERVE;
            node.store.update(|d| d.status_counter = reserved).await?;
            self.reserved = reserved;
        }
        self.next += 1;
        Ok(self.next)
    }
}

/// Sends accounts for ever.
pub async fn run(node: Arc<Node>) {
    let start = node.store.get().status_counter;
    let mut counter = Counter {
        next: start,
        reserved: start,
        behind: None,
    };
    let mut other = node.lighthouse.subscribe();
    loop {
        if let Err(e) = send(&node, &mut counter).await {
            tracing::debug!("status not sent: {e:#}");
            let held = e.downcast_ref::<ClientError>().and_then(ClientError::held);
            if let Some(held) = held
                && counter.catch_up(held, Instant::now())
                && node.notes.set("twin", "another machine gives accounts of this node with its keys: one of the two disks is a copy; give it a seed made with holdfast seed new --rejoin")
            {
                crate::console::say("another machine uses this node's keys");
            }
        }
        tokio::select! {
            () = node.changed.notified() => {}
            () = node.notes.changed() => {}
            Ok(()) = other.changed() => {}
            () = tokio::time::sleep(EVERY) => continue,
        }
        tokio::time::sleep(SETTLE).await;
    }
}

async fn send(node: &Node, counter: &mut Counter) -> anyhow::Result<()> {
    let client = super::active(node).await;
    let count = counter.take(node).await?;
    let status = account(node, count).await?;
    let doc = node.store.get();
    let identity = doc.identity.as_ref().context("this node has no keys")?;
    client
        .put_status(&Signed::sign(&status, &identity.signing)?)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_account_is_a_restored_backup_once_and_a_twin_when_it_comes_again() {
        let mut counter = Counter {
            next: 5,
            reserved: 1005,
            behind: None,
        };
        let now = Instant::now();
        assert!(!counter.catch_up(2000, now) && counter.next == 2000);
        assert!(counter.catch_up(2005, now + Duration::from_secs(60)));
        assert!(!counter.catch_up(2010, now + Duration::from_secs(60) + TWIN));
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
