//! A node that is out of reach helps itself: what is known is gathered here, [`decide`] says what
//! to do, and it is done here.

mod decide;

use crate::console::say;
use crate::control;
use crate::network::Uplinks;
use crate::node::{Node, event};
use decide::{Act, Facts, Memory, Why, step};
use holdfast_core::ipc::InitRequest;
use holdfast_core::state::Escalation;
use holdfast_core::status::{K3sState, SlotName};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(30);
/// A session that is older has ended (WireGuard's REJECT_AFTER_TIME is 180 s), with room for the last
/// answer.
const SESSION: Duration = Duration::from_secs(200);
/// What the next agent of this boot has to know; in memory, so that no flash wears.
const MEMORY: &str = "/run/holdfast/health.json";
/// A router's name service: that it refuses the connection is an answer, too.
const ROUTER_PORT: u16 = 53;
/// A neighbour that does not answer is known after three seconds (`ndisc` and `arp`, three tries of one).
const PATIENCE: Duration = Duration::from_secs(6);
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
    let (address, routers) = {
        let uplinks = uplinks.borrow();
        let with = uplinks.values().filter(|u| !u.addresses.is_empty());
        let routers: Vec<IpAddr> = with
            .clone()
            .flat_map(|u| &u.routes)
            .filter(|r| r.to.prefix_len() == 0)
            .filter_map(|r| r.via)
            .collect();
        (with.count() > 0, routers)
    };
    let company = company(node);
    let router = match company {
        // Nobody asks for it.
        true => None,
        false => answers(&routers).await,
    };
    let counted = node.store.get().escalation.clone().unwrap_or_default();
    let facts = Facts {
        trial: boot.trial_left.is_some(),
        busy: node.writing.try_lock().is_err(),
        address,
        router,
        company,
        ears: control::probe(node).await.is_ok(),
        workloads: *node.k3s.borrow() == K3sState::Ready,
        rescue: boot.boot.slot == SlotName::Rescue,
        alone_reboots: counted.alone,
        deaf_reboots: counted.deaf,
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

/// Whether one of the routers is there at all; none: there are none.
async fn answers(routers: &[IpAddr]) -> Option<bool> {
    let ask = |ip: &IpAddr| {
        let place = SocketAddr::new(*ip, ROUTER_PORT);
        async move { tokio::time::timeout(PATIENCE, TcpStream::connect(place)).await }
    };
    let asked = futures_util::future::join_all(routers.iter().map(ask)).await;
    (!asked.is_empty()).then(|| asked.into_iter().any(|answer| is_there(&answer)))
}

/// No answer at all means that the router dropped the question: its link-layer address is known.
fn is_there<T, E>(answer: &Result<std::io::Result<T>, E>) -> bool {
    match answer {
        Ok(Ok(_)) | Err(_) => true,
        Ok(Err(e)) => e.kind() == ErrorKind::ConnectionRefused,
    }
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
        Act::Reboot(why) => reboot(node, why).await,
        Act::GiveUp => {
            let reason = "its control server does not answer".into();
            if let Err(e) = node.init.ask(InitRequest::GiveUp { reason }).await {
                tracing::error!("{e:#}");
            }
        }
        Act::Forget => {
            let done = node.store.update(|d| d.escalation = None).await;
            if let Err(e) = done {
                tracing::warn!("{e:#}");
            }
        }
    }
}

async fn reboot(node: &Node, why: Why) {
    let reason = match why {
        Why::Alone => "no lighthouse and no member was in reach for long",
        Why::Deaf => "the own control server did not answer",
    };
    // Counted first: a reboot that nothing counts would come again and again.
    let counted = node.store.update(|d| {
        crate::node::remember(&mut d.history, event("reboot", reason));
        let counted = d.escalation.get_or_insert_with(Escalation::default);
        match why {
            Why::Alone => counted.alone += 1,
            Why::Deaf => counted.deaf += 1,
        }
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

    #[tokio::test]
    async fn a_router_that_refuses_is_there() {
        let localhost = [IpAddr::from([127, 0, 0, 1])];
        assert_eq!(answers(&localhost).await, Some(true));
        assert_eq!(answers(&[]).await, None);
        let gone = std::io::Error::from(ErrorKind::HostUnreachable);
        assert!(!is_there(&Ok::<std::io::Result<()>, ()>(Err(gone))));
    }

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
            router: Some(true),
            company: false,
            ears: true,
            workloads: true,
            rescue: false,
            alone_reboots: 0,
            deaf_reboots: 0,
        };
        step(&mut memory, &alone, Duration::from_secs(77));
        write(&path, &memory);
        assert_eq!(read(&path), memory);
        std::fs::write(&path, "[").unwrap();
        assert_eq!(read(&path), Memory::default());
    }
}
