//! A node that is out of reach helps itself: what is known is gathered here, [`decide`] says what
//! to do, and it is done here.

mod decide;

use crate::console::say;
use crate::control;
use crate::network::Uplinks;
use crate::node::{Node, event};
use decide::{Act, Facts, Memory, step};
use holdfast_core::state::Escalation;
use holdfast_core::status::SlotName;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(30);
/// A session that is older has ended (WireGuard's REJECT_AFTER_TIME is 180 s), with room for the last
/// answer.
const SESSION: Duration = Duration::from_secs(200);
/// What the next agent of this boot has to know; in memory, so that no flash wears.
const MEMORY: &str = "/run/holdfast/health.json";
/// For the console to print the last line.
const FAREWELL: Duration = Duration::from_millis(300);

/// Watches over this node's reach for as long as the agent runs.
pub async fn run(node: Arc<Node>, uplinks: watch::Receiver<Uplinks>) {
    let mut memory = read(Path::new(MEMORY));
    loop {
        tokio::time::sleep(LOOK).await;
        // Before that there is nobody to be reached by.
        if node.store.get().admission.is_none() {
            continue;
        }
        let Some((facts, now)) = look(&node, &uplinks).await else {
            continue;
        };
        let before = memory;
        let act = step(&mut memory, &facts, now);
        if memory != before {
            write(Path::new(MEMORY), &memory);
        }
        if act != Act::Nothing {
            tracing::warn!(?act, ?facts, "out of reach, or not any more");
            carry_out(&node, act).await;
        }
    }
}

/// What the agent before this one knew. After a reboot there is none: `/run` is in memory.
fn read(path: &Path) -> Memory {
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

fn write(path: &Path, memory: &Memory) {
    let done = serde_json::to_vec(memory)
        .map_err(std::io::Error::other)
        .and_then(|bytes| std::fs::write(path, bytes));
    if let Err(e) = done {
        tracing::warn!("{}: {e}", path.display());
    }
}

/// None: init does not answer, or the time is not known.
async fn look(node: &Node, uplinks: &watch::Receiver<Uplinks>) -> Option<(Facts, Duration)> {
    let boot = node.init.boot().await.ok()?;
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let now = Duration::from_secs(text.split('.').next()?.parse().ok()?);
    let address = uplinks.borrow().values().any(|u| !u.addresses.is_empty());
    let counted = node.store.get().escalation.clone().unwrap_or_default();
    let facts = Facts {
        trial: boot.trial_left.is_some(),
        busy: node.writing.try_lock().is_err(),
        address,
        company: company(node),
        ears: control::probe(node).await.is_ok(),
        rescue: boot.boot.slot == SlotName::Rescue,
        reboots: counted.alone,
    };
    Some((facts, now))
}

/// A lighthouse answers calls, or a session with anybody is young.
fn company(node: &Node) -> bool {
    let mesh = node.mesh.borrow().clone();
    let young = |age: Option<Duration>| age.is_some_and(|age| age < SESSION);
    !node.posts.answering().is_empty()
        || mesh.is_some_and(|m| m.status().iter().any(|p| young(p.last_handshake)))
}

async fn carry_out(node: &Node, act: Act) {
    match act {
        Act::Nothing => {}
        Act::Race => node.roamed.send_modify(|times| *times += 1),
        Act::MeshAnew => {
            say("the own control server does not answer: the mesh begins anew");
            node.mesh_anew.notify_one();
        }
        Act::AgentAnew => {
            say("out of reach: the agent is started anew");
            tokio::time::sleep(FAREWELL).await;
            std::process::exit(1);
        }
        Act::Reboot => reboot(node).await,
        Act::Forget => {
            let done = node.store.update(|d| d.escalation = None).await;
            if let Err(e) = done {
                tracing::warn!("{e:#}");
            }
        }
    }
}

async fn reboot(node: &Node) {
    let reason = "no lighthouse and no member was in reach for long";
    // Counted first: a reboot that nothing counts would come again and again.
    let counted = node.store.update(|d| {
        crate::node::remember(&mut d.history, event("reboot", reason));
        let counted = d.escalation.get_or_insert_with(Escalation::default);
        counted.alone = counted.alone.saturating_add(1);
    });
    if let Err(e) = counted.await {
        node.notes.set(
            "health",
            format!("no reboot, for it cannot be counted: {e:#}"),
        );
        return;
    }
    if let Err(e) = crate::update::reboot(node, reason.into(), false).await {
        tracing::error!("{e:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_agent_remembers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.json");
        assert_eq!(read(&path), Memory::default());
        let mut memory = Memory::default();
        let alone = Facts {
            trial: false,
            busy: false,
            address: true,
            company: false,
            ears: true,
            rescue: false,
            reboots: 0,
        };
        step(&mut memory, &alone, Duration::from_secs(77));
        write(&path, &memory);
        assert_eq!(read(&path), memory);
        std::fs::write(&path, "[").unwrap();
        assert_eq!(read(&path), Memory::default());
    }
}
