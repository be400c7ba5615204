//! Upgrades: a bundle is checked, written to the free slot, verified, and put on trial. The
//! running and the last good slot are never written to: init refuses it.

pub mod check;
mod source;
mod write;

use crate::clock::Clock;
use crate::console::say;
use crate::disk;
use crate::node::{Node, slot_event};
use crate::releases;
use anyhow::{Context as _, bail};
use check::{Here, Plan, Refusal};
use holdfast_core::control::Reply;
use holdfast_core::documents::Roots;
use holdfast_core::image::K3sInfo;
use holdfast_core::ipc::InitRequest;
use holdfast_core::keys::Digest;
use holdfast_core::layout::{HEADER_OFFSET, PAYLOAD_OFFSET};
use holdfast_core::manifest::{BundleError, PREFIX_LEN, manifest_len};
use holdfast_core::names::OperatorName;
use holdfast_core::status::{BootStatus, K3sState, SlotName, SlotStatus};
use source::{Place, Source};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use write::{Target, WriteError, Writer};

/// How often a new slot is tried: a power cut in its first start must not count against it.
const TRIES: u8 = 2;
/// Progress is told this often.
const TELL: Duration = Duration::from_millis(500);
/// k3s that is not ready is looked at for so long, more than once, before that is believed.
const NOT_READY: Duration = Duration::from_secs(10);

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where the bundle is.
    pub url: String,
    /// Of the whole bundle.
    pub digest: Digest,
    /// Its length in bytes.
    pub len: u64,
    /// Take an older one.
    pub allow_downgrade: bool,
    /// Who asks.
    pub operator: OperatorName,
}

/// Why an upgrade ended before its trial.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The bundle's fault.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Found while writing.
    #[error("{0}")]
    Write(#[from] WriteError),
    /// Everything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl UpgradeError {
    /// The word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "bad-bundle",
            Self::Write(WriteError::Disk(_) | WriteError::ReadBack { .. }) => "internal",
            Self::Write(_) => "bad-bundle",
            Self::Other(_) => "unavailable",
        }
    }
}

/// Tells the operator; who has gone is not waited for.
struct Teller {
    to: mpsc::Sender<Reply>,
    last: Option<Instant>,
}

impl Teller {
    fn tell(&mut self, step: &str, done: u64, total: u64) {
        if self.last.is_some_and(|l| l.elapsed() < TELL) && done != total {
            return;
        }
        self.last = Some(Instant::now());
        let _ = self.to.try_send(Reply::Progress {
            step: step.into(),
            done,
            total,
        });
    }
}

/// The slot that an upgrade is written to: the one that does not run. In rescue the one that is of
/// less use: not good, else the older.
pub fn free_slot(now: &BootStatus) -> SlotName {
    match now.slot {
        SlotName::A => SlotName::B,
        SlotName::B => SlotName::A,
        SlotName::Rescue => {
            let use_of = |s: &&SlotStatus| (s.state == "good", s.generation);
            now.slots
                .iter()
                .min_by_key(use_of)
                .map_or(SlotName::B, |s| s.slot)
        }
    }
}

/// Whether the node may roll back: what init would refuse is found before k3s is stopped and the
/// copy of its datastore, which may belong to the running trial, replaced.
///
/// # Errors
/// When the rescue system runs, the other slot is empty, or the running one is not good.
pub fn going_back(now: &BootStatus) -> anyhow::Result<()> {
    if now.slot == SlotName::Rescue {
        bail!("the rescue system runs: reboot into a slot first, or upgrade");
    }
    let target = free_slot(now);
    let state = |slot| now.slots.iter().find(|s| s.slot == slot).map(|s| &*s.state);
    if state(target).is_none_or(|s| s == "empty") {
        bail!("slot {target} is empty: there is nothing to roll back to");
    }
    if now.on_trial || state(now.slot) != Some("good") {
        bail!(
            "slot {} is not proven yet: it goes back by itself, or ask again once it is committed",
            now.slot
        );
    }
    Ok(())
}

/// Fetches, checks, writes and installs a bundle; the caller reboots into the trial.
///
/// # Errors
/// [`UpgradeError`]; the slot then is empty or as it was.
pub async fn upgrade(
    node: &Node,
    order: &Order,
    tell: mpsc::Sender<Reply>,
) -> Result<SlotName, UpgradeError> {
    let mut teller = Teller {
        to: tell,
        last: None,
    };
    let lighthouses = node
        .posts
        .answering()
        .iter()
        .map(|p| p.client.clone())
        .collect();
    let place = Place::new(&order.url, order.digest, lighthouses)?;
    let mut source = Source::new(place, order.len);
    let slot = free_slot(&node.init.boot().await?.boot);
    let front = read_front(&mut source, order.len).await?;
    let plan = decide(node, order, &front).await?;
    tracing::info!(version = plan.manifest.version, %slot, "a bundle passes its checks");

    let partitions = (
        partition(node, "hf-root", slot)?,
        partition(node, "hf-boot", slot)?,
    );
    node.init.ask(InitRequest::BeginWrite { slot }).await?;
    say(&format!("upgrade: slot {slot} emptied"));
    write_payloads(&mut source, order, &plan, front, &partitions, &mut teller).await?;
    write_header(&plan, &partitions.1).await?;
    say("upgrade: header written");
    prepare_trial(node, plan.manifest.k3s.as_ref()).await?;
    node.init
        .ask(InitRequest::Install {
            slot,
            digest: plan.digest,
            generation: plan.manifest.generation,
            tries: TRIES,
        })
        .await?;
    say("upgrade: trial set");
    teller.tell("install", 1, 1);
    let mut entry = slot_event(
        "upgrade",
        slot,
        Some(plan.manifest.version.clone()),
        format!(
            "generation {} written, on trial at the next start",
            plan.manifest.generation
        ),
    );
    entry.operator = Some(order.operator.to_string());
    node.remember(entry).await;
    Ok(slot)
}

/// Whether a trial must bring k3s to Ready: `now`, before the trial, and as it was stored.
fn was_ready(now: K3sState, stored: bool) -> bool {
    match now {
        K3sState::Ready => true,
        // Not there yet says nothing of this system.
        K3sState::Starting => stored,
        K3sState::NotReady | K3sState::Failed | K3sState::None => false,
    }
}

/// What the trial is measured against, and what must come back should it fail.
///
/// # Errors
/// When the datastore of k3s cannot be copied or the state not be stored.
pub async fn prepare_trial(node: &Node, k3s: Option<&K3sInfo>) -> anyhow::Result<()> {
    let mut k3s_state = node.k3s.subscribe();
    // One look may fall into a moment of the API's.
    let _ = tokio::time::timeout(NOT_READY, k3s_state.wait_for(|s| *s != K3sState::NotReady)).await;
    let now = *k3s_state.borrow();
    // Rescue runs no k3s: what was found before counts.
    if node.boot.boot.slot != SlotName::Rescue {
        node.store
            .update(|d| d.k3s_was_ready = was_ready(now, d.k3s_was_ready))
            .await?;
    }
    crate::k3s::before_trial(node, k3s).await
}

fn partition(node: &Node, stem: &str, slot: SlotName) -> anyhow::Result<PathBuf> {
    let name = format!("{stem}-{slot}");
    node.partition(&name)
        .with_context(|| format!("this disk has no partition {name}"))
}

/// The bundle's bytes up to the end of its manifest, at least.
async fn read_front(source: &mut Source, len: u64) -> Result<Vec<u8>, UpgradeError> {
    let mut front = vec![];
    let mut want = PREFIX_LEN;
    loop {
        if front.len() as u64 >= want {
            let whole = PREFIX_LEN + u64::from(manifest_len(&front).map_err(Refusal::Front)?);
            if front.len() as u64 >= whole {
                return Ok(front);
            }
            want = whole;
        }
        if want > len {
            return Err(Refusal::Front(BundleError::Truncated { have: len, want }).into());
        }
        match source.next().await? {
            Some(chunk) => front.extend_from_slice(&chunk),
            None => {
                let have = front.len() as u64;
                return Err(Refusal::Front(BundleError::Truncated { have, want }).into());
            }
        }
    }
}

async fn decide(node: &Node, order: &Order, front: &[u8]) -> Result<Plan, UpgradeError> {
    let doc = node.store.get();
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let keys = releases::trusted(admission.cluster_id, &Roots(admission.roots.clone()))?;
    let slots = node
        .partition("hf-slots")
        .context("this machine has no hf-slots")?;
    let newest = doc.documents.as_ref().map(|set| set.releases.clone());
    let list = disk::blocking(move || releases::judging(&slots, &keys, newest.as_deref())).await?;
    let here = Here {
        cluster: admission.cluster_id,
        releases: &list,
        image: &node.image,
        runs_k3s: admission.role.runs_k3s(),
        allow_downgrade: order.allow_downgrade,
    };
    Ok(check::check(front, order.len, &here)?)
}

/// Streams the bundle through the writer, which has a thread for itself.
async fn write_payloads(
    source: &mut Source,
    order: &Order,
    plan: &Plan,
    front: Vec<u8>,
    partitions: &(PathBuf, PathBuf),
    teller: &mut Teller,
) -> Result<(), UpgradeError> {
    let (send, receive) = mpsc::channel::<Vec<u8>>(8);
    let (plan, (root, boot)) = (plan.clone(), partitions.clone());
    let (len, wanted) = (order.len, order.digest);
    let writer =
        tokio::task::spawn_blocking(move || write_all(&plan, len, wanted, &root, &boot, receive));
    let mut done = front.len() as u64;
    let mut next = Some(front);
    let mut fetched: anyhow::Result<()> = Ok(());
    while let Some(chunk) = next {
        // The writer found a fault: it tells which below.
        if send.send(chunk).await.is_err() {
            break;
        }
        teller.tell("write", done, len);
        next = match source.next().await {
            Ok(chunk) => chunk,
            Err(e) => {
                fetched = Err(e);
                None
            }
        };
        done += next.as_ref().map_or(0, |c| c.len() as u64);
    }
    drop(send);
    teller.tell("verify", done, len);
    let written = writer
        .await
        .map_err(|e| anyhow::anyhow!("the writing thread died: {e}"))?;
    // Bytes that did not come explain a digest that does not fit.
    fetched?;
    written
}

fn write_all(
    plan: &Plan,
    len: u64,
    wanted: Digest,
    root: &std::path::Path,
    boot: &std::path::Path,
    mut chunks: mpsc::Receiver<Vec<u8>>,
) -> Result<(), UpgradeError> {
    let target = |path, base| {
        let file = disk::open_write(path).map_err(WriteError::Disk)?;
        Ok::<_, WriteError>(Target { file, base })
    };
    let (root, boot) = (target(root, 0)?, target(boot, PAYLOAD_OFFSET)?);
    // The old header goes first: what follows it is not what it names any more.
    disk::write_flushed(&boot.file, HEADER_OFFSET, &[0; 4096]).map_err(WriteError::Disk)?;
    let mut writer = Writer::new(plan, len, &root, &boot)?;
    while let Some(chunk) = chunks.blocking_recv() {
        for what in writer.feed(&chunk)? {
            say(&format!("upgrade: {what} written"));
        }
    }
    if writer.at() < len {
        return Err(anyhow::anyhow!("only {} of {len} bytes came", writer.at()).into());
    }
    Ok(writer.finish(wanted)?)
}

async fn write_header(plan: &Plan, boot: &std::path::Path) -> Result<(), UpgradeError> {
    let (header, boot) = (plan.header.clone(), boot.to_path_buf());
    disk::blocking(move || {
        let file = disk::open_write(&boot)?;
        disk::write_flushed(&file, HEADER_OFFSET, &*header)?;
        if disk::read_at(&file, HEADER_OFFSET, header.len())? != *header {
            bail!("{} does not keep its header", boot.display());
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// Asks init for an orderly reboot; the agent itself is ended last.
///
/// # Errors
/// When init refuses.
pub async fn reboot(node: &Node, reason: String, rescue: bool) -> anyhow::Result<()> {
    tracing::info!(reason, now = Clock::now(), "reboot");
    node.init
        .ask(InitRequest::Reboot { reason, rescue })
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_k3s_that_is_merely_starting_is_still_asked_for() {
        use K3sState::*;
        assert!(was_ready(Ready, false) && was_ready(Starting, true));
        assert!(!was_ready(Starting, false));
        assert!(
            [NotReady, Failed, None]
                .iter()
                .all(|s| !was_ready(*s, true))
        );
    }

    #[test]
    fn rescue_writes_what_is_of_less_use() {
        let boot = |slot, slots: [(&str, u64); 2]| BootStatus {
            boot_id: "b".into(),
            slot,
            version: "1".into(),
            generation: 1,
            on_trial: false,
            reason: String::new(),
            slots: [SlotName::A, SlotName::B]
                .into_iter()
                .zip(slots)
                .map(|(slot, (state, generation))| SlotStatus {
                    slot,
                    state: state.into(),
                    generation,
                    tries_left: 0,
                    reason: String::new(),
                    probation: false,
                })
                .collect(),
        };
        let free = |slots| free_slot(&boot(SlotName::Rescue, slots));
        assert_eq!(free([("good", 1), ("bad", 2)]), SlotName::B);
        assert_eq!(free([("good", 1), ("good", 2)]), SlotName::A);
        assert_eq!(free([("empty", 0), ("good", 2)]), SlotName::A);
        assert_eq!(
            free_slot(&boot(SlotName::B, [("good", 1), ("good", 2)])),
            SlotName::A
        );
    }

    #[test]
    fn back_only_from_a_proven_slot_to_one_that_holds_something() {
        let status = |slot, state: &str| SlotStatus {
            slot,
            state: state.into(),
            generation: 1,
            tries_left: 0,
            reason: String::new(),
            probation: false,
        };
        let boot = |slot, a: &str, b: &str| BootStatus {
            boot_id: "b".into(),
            slot,
            version: "1".into(),
            generation: 1,
            on_trial: false,
            reason: String::new(),
            slots: vec![status(SlotName::A, a), status(SlotName::B, b)],
        };
        assert!(going_back(&boot(SlotName::A, "good", "bad")).is_ok());
        let refused = going_back(&boot(SlotName::A, "good", "empty")).unwrap_err();
        assert!(refused.to_string().contains("slot b is empty"));
        assert!(going_back(&boot(SlotName::Rescue, "good", "good")).is_err());
        // The running one is a trial: the copy that it would go back to stays.
        assert!(going_back(&boot(SlotName::B, "good", "trial")).is_err());
    }
}
