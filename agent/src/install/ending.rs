//! What follows the disk's table: the journal, the firmware's entry, and the stick's own end.

use super::content;
use super::disks::Disk;
use super::plan::Step;
use super::{firmware, tell};
use crate::backoff::Backoff;
use crate::console::say;
use crate::disk::{blocking, open_read, open_write, read_at, write_flushed};
use crate::node::Node;
use crate::seed;
use anyhow::Context as _;
use holdfast_core::ipc::InitRequest;
use holdfast_core::layout::{HEADER_OFFSET, Role};
use holdfast_core::state::Installed;

/// Entries that the journal keeps.
const JOURNAL: usize = 200;

/// Notes an installation: before the first byte, and after the last.
pub async fn journal(node: &Node, entry: &Installed, done: bool) -> anyhow::Result<()> {
    let entry = Installed {
        done,
        ..entry.clone()
    };
    node.store
        .update(|doc| {
            doc.installed.retain(|i| i.disk != entry.disk);
            doc.installed.push(entry);
            let over = doc.installed.len().saturating_sub(JOURNAL);
            doc.installed.drain(..over);
        })
        .await
}

/// Carries out the steps after the table, each until it is done; the last one ends this boot.
pub async fn end(node: &Node, entry: &Installed, steps: Vec<Step>, disk: Option<&Disk>) {
    for step in steps {
        let mut pauses = Backoff::secs(1, 60);
        while let Err(e) = end_step(node, entry, &step, disk).await {
            say(&format!("install: {e:#}; tried again"));
            tokio::time::sleep(pauses.pause()).await;
        }
    }
    // Init ends this process in a moment.
    std::future::pending().await
}

async fn end_step(
    node: &Node,
    entry: &Installed,
    step: &Step,
    disk: Option<&Disk>,
) -> anyhow::Result<()> {
    match step {
        Step::BootEntry => {
            if let Some(disk) = disk {
                boot_entry(disk).await;
            }
            Ok(())
        }
        Step::Journal { done } => {
            journal(node, entry, *done).await?;
            say("install: done");
            Ok(())
        }
        Step::Scrub => {
            if let Some(partition) = node.partition(Role::Seed.name()) {
                let scrub = move || seed::volume::format_anew(&partition);
                seed::volume::with(seed::volume::PATIENCE, scrub).await?;
            }
            say("install: seed scrubbed");
            node.reporter.forget().await;
            Ok(())
        }
        Step::Report => {
            let message = format!("installed on {}", entry.name);
            let advice = match entry.retire {
                true => {
                    "Nothing: the machine starts from its disk, with the stick or without it. The stick is spent; flash it anew to use it again"
                }
                false => {
                    "Take the stick out and switch the machine on. The stick installs the next machine; this one it leaves alone"
                }
            };
            tell(node, "installed", message, advice).await;
            Ok(())
        }
        Step::Retire => {
            node.init.ask(InitRequest::Retire).await?;
            say("install: the stick's slots are emptied");
            Ok(())
        }
        Step::ClearHeader(role) => {
            let Some(partition) = node.partition(role.name()) else {
                return Ok(());
            };
            let clear = move || {
                Ok(write_flushed(
                    &open_write(&partition)?,
                    HEADER_OFFSET,
                    &[0; 4096],
                )?)
            };
            blocking(clear).await
        }
        Step::Restart => {
            let reason = format!("installed on {}", entry.name);
            let rescue = false;
            let request = InitRequest::Reboot { reason, rescue };
            node.init.ask(request).await.map(drop)
        }
        Step::PowerOff => {
            let reason = format!("installed on {}", entry.name);
            node.init
                .ask(InitRequest::PowerOff { reason })
                .await
                .map(drop)
        }
        // The disk's own steps are behind us.
        _ => Ok(()),
    }
}

/// Whatever the firmware says is only told.
async fn boot_entry(disk: &Disk) {
    let (path, bytes) = (disk.node(), disk.bytes);
    let added = blocking(move || {
        let first = read_at(&open_read(&path)?, 0, content::LOOK)?;
        let esp = firmware::esp(bytes, &first).context("the disk's esp is not found")?;
        firmware::add_entry(esp)
    });
    match added.await {
        Ok(name) => say(&format!("install: firmware entry {name} goes first")),
        Err(e) => say(&format!(
            "install: no firmware entry ({e:#}); none is needed"
        )),
    }
}
