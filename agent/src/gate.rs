//! The gate (decision 6): a system on trial is committed only when it has shown what an operator
//! needs of it.
//!
//! ```text
//! cold boot through the loader -> handshake with a lighthouse -> a control request answered
//!   -> k3s Ready, if it was Ready before -> commit
//! any of them missing shortly before init's deadline -> the trial fails, with the first one missing
//! ```
//! "A control request answered" is an operator's request of this boot, or, so that no operator
//! need be awake, the node's own: over its mesh address, through TLS and the control protocol
//! ([`crate::control::probe`]).

use crate::forever::forever;
use crate::node::{Node, remember, slot_event};
use crate::{chapters, control, k3s};
use holdfast_core::ipc::InitRequest;
use holdfast_core::slots::Stage;
use holdfast_core::status::K3sState;
use std::sync::Arc;
use std::time::Duration;

/// How often the conditions are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The agent gives its own reason so many seconds before init's deadline.
const BEFORE_DEADLINE: u64 = 10;
/// The own control server is asked this often until it answers.
const PROBE: Duration = Duration::from_secs(3);

/// What is known at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Seconds until init's deadline; none: no trial runs.
    pub left: Option<u64>,
    /// The loader started this system.
    pub cold_boot: bool,
    /// An uplink has an address.
    pub network: bool,
    /// The node has joined.
    pub joined: bool,
    /// A handshake with a lighthouse in this boot.
    pub handshake: bool,
    /// A control request was answered in this boot.
    pub answered: bool,
    /// k3s must be Ready.
    pub wants_k3s: bool,
    /// k3s is.
    pub k3s: K3sState,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No trial.
    Idle,
    /// Not yet; the first condition that is missing.
    Wait(String),
    /// Proven.
    Commit,
    /// Not in time.
    Fail(String),
}

fn missing(f: &Facts) -> Option<String> {
    if !f.cold_boot {
        return Some("the system was not started by the loader".into());
    }
    if !f.joined {
        return Some("no mesh: the node has not joined a cluster".into());
    }
    if !f.handshake {
        // Short: the slot record keeps some 80 characters of a reason.
        let why = if f.network {
            "no lighthouse answered"
        } else {
            "no interface has an address"
        };
        return Some(format!("no mesh handshake: {why}"));
    }
    if !f.answered {
        return Some("the control server did not answer".into());
    }
    if f.wants_k3s && f.k3s != K3sState::Ready {
        return Some(format!("k3s was Ready before and is {} now", f.k3s));
    }
    None
}

/// Decides.
pub fn verdict(f: &Facts) -> Verdict {
    let Some(left) = f.left else {
        return Verdict::Idle;
    };
    match missing(f) {
        None => Verdict::Commit,
        Some(why) if left <= BEFORE_DEADLINE => Verdict::Fail(why),
        Some(why) => Verdict::Wait(why),
    }
}

/// How far this start came; none: not even a network.
fn reached(f: &Facts) -> Option<Stage> {
    match f {
        Facts { answered: true, .. } => Some(Stage::CONTROL),
        Facts {
            handshake: true, ..
        } => Some(Stage::MESH),
        Facts { network: true, .. } => Some(Stage::NETWORK),
        _ => None,
    }
}

/// Watches the gate for as long as the agent runs.
pub async fn run(node: Arc<Node>, uplinks: tokio::sync::watch::Receiver<crate::network::Uplinks>) {
    chapters::begin(&node).await;
    forever("probe", ask_oneself(node.clone()));
    let mut said = None;
    let mut told = None;
    let mut might_go_back = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let doc = node.store.get();
        // Init that does not answer says nothing of a trial.
        let Ok(boot) = node.init.boot().await else {
            continue;
        };
        let left = boot.trial_left;
        let facts = Facts {
            left,
            cold_boot: !node.boot.boot.boot_id.is_empty(),
            network: uplinks.borrow().values().any(|u| !u.addresses.is_empty()),
            joined: doc.admission.is_some(),
            handshake: *node.handshake.borrow(),
            answered: *node.answered.borrow(),
            wants_k3s: doc.k3s_was_ready
                && doc.admission.as_ref().is_some_and(|a| a.role.runs_k3s()),
            k3s: *node.k3s.borrow(),
        };
        let reached = reached(&facts);
        if reached > told && tell(&node, reached).await {
            told = reached;
        }
        if might_go_back && !boot.boot.may_go_back() {
            k3s::settled(&boot.boot.boot_id).await;
        }
        might_go_back = boot.boot.may_go_back();
        match verdict(&facts) {
            Verdict::Idle => {
                if facts.k3s == K3sState::Ready && !doc.k3s_was_ready {
                    let stored = node.store.update(|d| d.k3s_was_ready = true).await;
                    if let Err(e) = stored {
                        tracing::warn!("{e:#}");
                    }
                }
            }
            Verdict::Wait(why) => {
                if said.as_ref() != Some(&why) {
                    tracing::info!(left, "on trial, still missing: {why}");
                    said = Some(why);
                }
            }
            Verdict::Commit => commit(&node).await,
            Verdict::Fail(why) => {
                crate::console::say(&format!("the trial fails: {why}"));
                if let Err(e) = node.init.ask(InitRequest::FailTrial { reason: why }).await {
                    tracing::error!("{e:#}");
                }
            }
        }
    }
}

/// Tells init how far it is.
async fn tell(node: &Node, reached: Option<Stage>) -> bool {
    let stage = reached.map_or("", Stage::id).to_owned();
    let told = node.init.ask(InitRequest::Reached { stage }).await;
    told.inspect_err(|e| tracing::warn!("{e:#}")).is_ok()
}

async fn commit(node: &Node) {
    if let Err(e) = node.init.ask(InitRequest::Commit).await {
        tracing::error!("the trial cannot be committed: {e:#}");
        return;
    }
    crate::console::say(&format!("slot {} committed", node.boot.boot.slot));
    let entry = slot_event(
        "commit",
        node.boot.boot.slot,
        Some(node.image.version.clone()),
        "proven: mesh, control and, where it ran before, k3s",
    );
    let ready = *node.k3s.borrow() == K3sState::Ready;
    let stored = node
        .store
        .update(|d| {
            remember(&mut d.history, entry);
            d.k3s_was_ready |= ready;
        })
        .await;
    if let Err(e) = stored {
        tracing::warn!("{e:#}");
    }
    node.changed.notify_one();
}

/// Until an operator or the node itself got an answer.
async fn ask_oneself(node: Arc<Node>) {
    let mut handshake = node.handshake.subscribe();
    // Before the mesh is up there is nothing to ask over.
    let _ = handshake.wait_for(|up| *up).await;
    while !*node.answered.borrow() {
        match control::probe(&node).await {
            Ok(()) => {
                node.answered.send_replace(true);
            }
            Err(e) => tracing::info!("the own control server: {e:#}"),
        }
        tokio::time::sleep(PROBE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: Facts = Facts {
        left: Some(300),
        cold_boot: true,
        network: true,
        joined: true,
        handshake: true,
        answered: true,
        wants_k3s: true,
        k3s: K3sState::Ready,
    };

    #[test]
    fn the_first_missing_condition_is_the_reason() {
        assert_eq!(verdict(&GOOD), Verdict::Commit);
        assert_eq!(verdict(&Facts { left: None, ..GOOD }), Verdict::Idle);
        let reason = |f: Facts| match verdict(&Facts { left: Some(3), ..f }) {
            Verdict::Fail(why) => why,
            other => panic!("{other:?}"),
        };
        let deaf = Facts {
            handshake: false,
            answered: false,
            network: false,
            ..GOOD
        };
        assert!(reason(deaf).contains("mesh") && reason(deaf).contains("address"));
        assert!(
            reason(Facts {
                answered: false,
                k3s: K3sState::Failed,
                ..GOOD
            })
            .contains("control")
        );
        assert!(
            reason(Facts {
                k3s: K3sState::Starting,
                ..GOOD
            })
            .contains("k3s")
        );
        assert!(
            reason(Facts {
                cold_boot: false,
                ..GOOD
            })
            .contains("loader")
        );
    }

    #[test]
    fn k3s_that_was_not_ready_before_is_not_asked_for() {
        let f = Facts {
            wants_k3s: false,
            k3s: K3sState::Failed,
            ..GOOD
        };
        assert_eq!(verdict(&f), Verdict::Commit);
    }

    proptest! {
        #[test]
        fn commits_exactly_when_nothing_is_missing(
            left in proptest::option::of(0u64..600),
            flags in any::<[bool; 6]>(),
            ready in any::<bool>(),
        ) {
            let [cold_boot, network, joined, handshake, answered, wants_k3s] = flags;
            let k3s = if ready { K3sState::Ready } else { K3sState::Starting };
            let f = Facts { left, cold_boot, network, joined, handshake, answered, wants_k3s, k3s };
            let all = cold_boot && joined && handshake && answered && (ready || !wants_k3s);
            match verdict(&f) {
                Verdict::Idle => prop_assert!(left.is_none()),
                Verdict::Commit => prop_assert!(left.is_some() && all),
                Verdict::Wait(_) => prop_assert!(left.is_some_and(|l| l > BEFORE_DEADLINE) && !all),
                Verdict::Fail(_) => prop_assert!(left.is_some_and(|l| l <= BEFORE_DEADLINE) && !all),
            }
        }
    }
}
