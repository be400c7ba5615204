//! Installing from a stick: a seed with an `[install]` table makes the machine that boots it an
//! installer. It copies its own system to the disk that the seed's rules name, asks nothing, and
//! joins nothing itself.
//!
//! `choose` (which disk), `plan` (what is written, in which order) and `content` (what is on a disk)
//! decide on values; `disks`, `source`, `work`, `ending` and `firmware` are the effects; `model` cuts
//! the power anywhere.

mod choose;
mod content;
mod disks;
mod ending;
mod firmware;
#[cfg(test)]
mod model;
mod plan;
mod root;
mod source;
mod volume;
mod work;

use crate::clock::Clock;
use crate::console::say;
use crate::disk::{blocking, open_read, read_at};
use crate::node::Node;
use crate::seed::report::Report;
use anyhow::Context as _;
use choose::{Choice, choose};
use disks::Disk;
use ending::{end, journal};
use holdfast_core::gpt;
use holdfast_core::guid::Guid;
use holdfast_core::ipc::InitRequest;
use holdfast_core::layout::Role;
use holdfast_core::seed::{Seed, SeedInstall};
use holdfast_core::slots::Slot;
use holdfast_core::state::Installed;
use holdfast_core::status::SlotName;
use plan::Step;
use std::path::Path;
use std::time::{Duration, Instant};
use work::{Progress, Work};

/// The kernel's view of the machine.
const SYS: &str = "/sys";
/// Disks may go on appearing for so long after the last one did (USB bridges are slow).
const SETTLED: Duration = Duration::from_secs(5);
/// A driver that hangs does not hold up the installation for longer.
const PATIENCE: Duration = Duration::from_secs(180);
/// The rescue system does not install: it gives the slots another start after so long.
const RESCUE_PAUSE: Duration = Duration::from_secs(60);

/// Where an installation stands that cannot go on, for the report.
struct Trouble {
    state: &'static str,
    message: String,
    advice: &'static str,
}

impl Trouble {
    fn failed(error: &anyhow::Error) -> Self {
        Self {
            state: "install-failed",
            message: format!("{error:#}"),
            advice: "It is tried again. If it goes on, use another stick, or another disk",
        }
    }
}

/// One attempt to do what the seed's rules say. Comes back only when it cannot: the reason was told.
pub async fn attempt(node: &Node, seed: &Seed, rules: &SeedInstall) {
    if let Err(trouble) = begin(node, seed, rules).await {
        tell(node, trouble.state, trouble.message, trouble.advice).await;
    }
}

/// Ends the work of a stick that is spent, its seed scrubbed or not; comes back at once where there
/// is none.
pub async fn finish_what_was_done(node: &Node) {
    let doc = node.store.get();
    let spent = |i: &&Installed| i.done && i.retire;
    if doc.admission.is_some() {
        return;
    }
    if let Some(entry) = doc.installed.iter().rev().find(spent) {
        end(node, entry, plan::tidy(true), None).await;
    }
}

async fn begin(node: &Node, seed: &Seed, rules: &SeedInstall) -> Result<(), Trouble> {
    let doc = node.store.get();
    if doc.admission.is_some() {
        return Err(Trouble {
            state: "install-refused",
            message: "this disk's node has joined a cluster: it installs nothing".into(),
            advice: "Flash a stick anew with holdfast flash --installer",
        });
    }
    let slot = match node.boot.boot.slot {
        SlotName::A => Slot::A,
        SlotName::B => Slot::B,
        SlotName::Rescue => return Err(in_rescue(node).await),
    };
    say("install: looking for the disk to install on");
    let disks = settled(node).await.map_err(|e| Trouble::failed(&e))?;
    let own = own_disk(node);
    match choose(rules, &disks, &own, &doc.installed) {
        Choice::Refuse(lines) => Err(refused(&lines)),
        Choice::Done(disk, entry) => {
            let entry = &doc.installed[entry];
            say(&format!(
                "install: {} holds what this installer put there",
                disks[disk]
            ));
            let steps = match entry.done {
                true => plan::tidy(entry.retire),
                false => plan::ending(entry.retire),
            };
            end(node, entry, steps, Some(&disks[disk])).await;
            Ok(())
        }
        Choice::Install(disk, guid) => {
            let retire = !rules.reuse;
            let entry = install(node, seed, (&disks[disk], guid, retire), slot)
                .await
                .map_err(|e| Trouble::failed(&e.context(disks[disk].to_string())))?;
            end(node, &entry, plan::ending(retire), Some(&disks[disk])).await;
            Ok(())
        }
    }
}

fn refused(lines: &[String]) -> Trouble {
    let none = "this machine has no disk".to_owned();
    let all = lines.join("; ");
    Trouble {
        state: "install-refused",
        message: format!(
            "no disk to install on: {}",
            if lines.is_empty() { none } else { all }
        ),
        advice: "Mend the rules in the seed's [install] table, or the machine's disks; it is tried again",
    }
}

/// Three starts that ended within minutes, and no hour to wait: somebody stands there.
async fn in_rescue(node: &Node) -> Trouble {
    let seconds = RESCUE_PAUSE.as_secs();
    say(&format!(
        "install: the rescue system installs nothing; the slots are started again in {seconds} s"
    ));
    tokio::time::sleep(RESCUE_PAUSE).await;
    let reason = "an installer in rescue".into();
    let request = InitRequest::Reboot {
        reason,
        rescue: false,
    };
    match node.init.ask(request).await {
        Ok(_) => std::future::pending().await,
        Err(e) => Trouble::failed(&e),
    }
}

fn own_disk(node: &Node) -> String {
    let path = Path::new(&node.boot.devices.disk).file_name();
    path.map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// All disks, once no more of them appear.
async fn settled(node: &Node) -> anyhow::Result<Vec<Disk>> {
    let began = Instant::now();
    let mut seen = disks::names(Path::new(SYS));
    let mut since = Instant::now();
    while began.elapsed() < PATIENCE {
        let names = disks::names(Path::new(SYS));
        let loading = node.init.boot().await.is_ok_and(|b| b.loading);
        if names != seen || loading {
            seen = names;
            since = Instant::now();
        } else if since.elapsed() >= SETTLED {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    blocking(|| Ok(disks::survey(Path::new(SYS)))).await
}

/// Everything up to the disk's table; the journal's entry of it.
async fn install(
    node: &Node,
    seed: &Seed,
    (disk, guid, retire): (&Disk, Option<String>, bool),
    slot: Slot,
) -> anyhow::Result<Installed> {
    let mut handed = seed.clone();
    handed.install = None;
    let handed = handed.to_toml().context("the seed for the disk")?;
    let partition = |role: Role| {
        let path = node.partition(role.name());
        path.with_context(|| format!("the stick has no partition {}", role.name()))
    };
    let (slots, boot, esp) = (
        partition(Role::Slots)?,
        partition(Role::Boot(slot))?,
        partition(Role::Esp)?,
    );
    let (asked, known) = (seed.clone(), guid.and_then(|g| parse_guid(&g)));
    let (bytes, stick) = (disk.bytes, node.boot.devices.disk.clone());
    let made = blocking(move || {
        let cmdline = std::fs::read_to_string("/proc/cmdline")?;
        let source = source::read(&slots, &boot, &asked, &cmdline)?;
        let mut guids = [Guid::NIL; 10];
        for guid in &mut guids {
            *guid = Guid::random(random()?);
        }
        let disk = match known {
            Some(guid) => guid,
            None => Guid::random(random()?),
        };
        let first = read_at(&open_read(&esp)?, 0, 512)?;
        let mbr = read_at(&open_read(Path::new(&stick))?, 0, 512)?;
        let inputs = plan::Inputs {
            source: &source,
            boot: Role::Boot(slot),
            root: Role::Root(slot),
            bytes,
            disk,
            hybrid_mbr: gpt::is_hybrid(&mbr),
            guids,
            esp_patches: volume::new_id(&first, u32::from_le_bytes(random()?)),
            seed_volume: volume::seed_volume(u32::from_le_bytes(random()?), &handed)?,
        };
        let steps = plan::install(&inputs)?;
        Ok((steps, source, disk))
    });
    let (steps, source, guid) = made.await?;
    let entry = Installed {
        disk: guid.to_string(),
        name: disk.to_string(),
        done: false,
        retire,
        other: Default::default(),
    };
    say(&format!(
        "install: {} {} to {disk}",
        source.facts.board, source.facts.version
    ));
    let message = format!("installing on {disk}");
    let advice = "Wait: the stick says when it is done. If the power fails, start it again";
    tell(node, "installing", message, advice).await;
    let total = steps.iter().map(|s| plan::weight(s, &source)).sum();
    let stick = node.boot.devices.partitions.iter();
    let stick = stick.map(|(k, v)| (k.clone(), v.into())).collect();
    let (path, chosen) = (disk.node(), disk.clone());
    let mut steps = steps.into_iter().peekable();
    while let Some(Step::Journal { done }) = steps.next_if(|s| matches!(s, Step::Journal { .. })) {
        journal(node, &entry, done).await?;
    }
    say("install: begun");
    blocking(move || {
        let mut work = Work::open(&path, stick, source.root, Progress::new(total))?;
        disks::still(Path::new(SYS), &chosen, work.disk())?;
        steps.try_for_each(|step| work.step(&step))
    })
    .await?;
    say(&format!("install: {} written and read back", disk.name));
    Ok(entry)
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    Ok(bytes)
}

/// The GUID of this text form.
fn parse_guid(text: &str) -> Option<Guid> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    (digits.len() == 32).then_some(Guid::from_u128(number))
}

async fn tell(node: &Node, state: &'static str, message: String, advice: &str) {
    let report = Report {
        state,
        source: None,
        message,
        advice: format!("{advice}."),
        version: node.image.version.clone(),
        at: Clock::now(),
    };
    node.reporter.tell(report).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_read_back() {
        let guid = Guid::random([0xa7; 16]);
        assert_eq!(parse_guid(&guid.to_string()), Some(guid));
        assert_eq!(parse_guid("x"), None);
        assert_eq!(parse_guid("a"), None);
    }

    #[test]
    fn a_refusal_lists_every_disk() {
        let text = refused(&["sda is small".into(), "sdb is taken".into()]).message;
        assert!(text.contains("sda is small; sdb is taken"), "{text}");
        assert!(refused(&[]).message.contains("has no disk"));
    }
}
