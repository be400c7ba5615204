//! Waiting for a node: asking again and again, with growing pauses, never for ever.

use crate::control::Target;
use crate::exit::{Exit, code_of};
use crate::progress::Steps;
use crate::words::roughly;
use anyhow::Result;
use holdfast_core::status::{K3sState, NodeStatus, SlotName};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What one account of a node means for what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet; in words.
    Wait(String),
    /// Done.
    Reached,
    /// It went back, and why.
    WentBack(String),
}

/// What the node was before.
#[derive(Debug, Clone)]
pub struct Before {
    boot_id: String,
    slot: SlotName,
    ready: bool,
}

impl Before {
    /// Remembers what matters of `status`.
    pub fn of(status: &NodeStatus) -> Self {
        Self {
            boot_id: status.boot.boot_id.clone(),
            slot: status.boot.slot,
            ready: status.k3s == K3sState::Ready,
        }
    }

    fn k3s(&self, now: &NodeStatus) -> Verdict {
        if self.ready && now.k3s != K3sState::Ready {
            Verdict::Wait(format!("k3s is {}", now.k3s))
        } else {
            Verdict::Reached
        }
    }

    /// After a reboot: another boot, and k3s Ready if it was before. Rescue, which nobody asked for
    /// here, is no success.
    pub fn rebooted(&self, now: &NodeStatus) -> Verdict {
        if now.boot.boot_id == self.boot_id {
            return Verdict::Wait("not down yet".into());
        }
        if now.boot.slot == SlotName::Rescue {
            return in_rescue(now);
        }
        self.k3s(now)
    }

    /// After a reboot into rescue: another boot, there. k3s never starts in it.
    pub fn rescued(&self, now: &NodeStatus) -> Verdict {
        if now.boot.boot_id == self.boot_id {
            return Verdict::Wait("not down yet".into());
        }
        if now.boot.slot == SlotName::Rescue {
            return Verdict::Reached;
        }
        Verdict::WentBack(format!(
            "the rescue system does not run: {}",
            now.boot.reason
        ))
    }

    /// After an upgrade or a rollback: the other slot, committed; or back in this one, or in
    /// rescue.
    pub fn other_slot(&self, now: &NodeStatus) -> Verdict {
        if now.boot.boot_id == self.boot_id {
            return Verdict::Wait("not down yet".into());
        }
        if now.boot.slot == SlotName::Rescue {
            return in_rescue(now);
        }
        if now.boot.slot != self.slot {
            if now.boot.on_trial {
                let k3s = if now.k3s == K3sState::None {
                    String::new()
                } else {
                    format!(", k3s {}", now.k3s)
                };
                return Verdict::Wait(format!(
                    "{} runs on trial in slot {}{k3s}",
                    now.boot.version, now.boot.slot
                ));
            }
            return Verdict::Reached;
        }
        let other = now
            .boot
            .slots
            .iter()
            .find(|s| s.slot != self.slot && s.slot != SlotName::Rescue);
        let why = [
            Some(now.boot.reason.as_str()),
            other.map(|s| s.reason.as_str()),
        ];
        let words: Vec<&str> = why
            .into_iter()
            .flatten()
            .filter(|w| !w.is_empty())
            .collect();
        // The boot's reason mostly quotes the slot's.
        match words[..] {
            [boot, slot] if boot.contains(slot) => Verdict::WentBack(boot.into()),
            _ => Verdict::WentBack(words.join("; ")),
        }
    }
}

fn in_rescue(now: &NodeStatus) -> Verdict {
    Verdict::WentBack(format!("the rescue system runs: {}", now.boot.reason))
}

/// Asks `target` for its account until `judge` has a verdict.
///
/// # Errors
/// Exit code 5 when the node went back, 6 after `limit`, 4 when it refuses to answer.
pub async fn wait(
    target: &Target<'_>,
    what: &str,
    limit: Duration,
    judge: impl Fn(&NodeStatus) -> Verdict,
) -> Result<NodeStatus> {
    let steps = Steps::new();
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut last = String::new();
    steps.start(what, None);
    loop {
        let words = match target.status().await {
            Ok(status) => match judge(&status) {
                Verdict::Reached => {
                    steps.done(
                        what,
                        &format!("done after {}", roughly(begun.elapsed().as_secs())),
                    );
                    return Ok(status);
                }
                Verdict::WentBack(why) => {
                    steps.clear();
                    let name = target.name();
                    return Err(Exit::WentBack.error(format!(
                        "{name} went back to {} in slot {}: {why}\n  `holdfast history {name}` and `holdfast logs {name}` say more.",
                        status.boot.version, status.boot.slot
                    )));
                }
                Verdict::Wait(words) => words,
            },
            Err(error) if code_of(&error) == Exit::Refused as u8 => return Err(error),
            Err(_) => "not reachable".to_string(),
        };
        if words != last {
            if !crate::progress::on_terminal() {
                steps.line(&format!("{what:<28} {words}"));
            }
            steps.message(what, &words);
            last = words;
        }
        if begun.elapsed() + pause > limit {
            steps.clear();
            return Err(Exit::TimedOut.error(format!(
                "{what}: not within {}; last seen: {last}. The node goes on by itself: `holdfast nodes` shows where it is",
                roughly(limit.as_secs())
            )));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::cluster::{ClusterId, MeshIndex};
    use holdfast_core::names::Role;
    use holdfast_core::status::{BootStatus, SlotStatus};

    fn status(boot_id: &str, slot: SlotName, on_trial: bool, k3s: K3sState) -> NodeStatus {
        NodeStatus {
            cluster: ClusterId([0; 16]),
            name: "n1".parse().unwrap(),
            role: Role::Server,
            index: MeshIndex::FIRST_NODE,
            counter: 1,
            uptime: 1,
            boot: BootStatus {
                boot_id: boot_id.into(),
                slot,
                version: "1".into(),
                generation: 1,
                on_trial,
                reason: "reboot asked for".into(),
                slots: vec![SlotStatus {
                    slot: SlotName::B,
                    state: "bad".into(),
                    generation: 2,
                    tries_left: 0,
                    reason: "mesh not up by the deadline".into(),
                    probation: false,
                }],
            },
            k3s,
            k3s_info: None,
            handshake_age: None,
            memory: None,
            documents: None,
            notes: vec![],
        }
    }

    #[test]
    fn a_reboot_ends_with_another_boot_and_k3s_as_before() {
        let before = Before::of(&status("1", SlotName::A, false, K3sState::Ready));
        assert!(matches!(
            before.rebooted(&status("1", SlotName::A, false, K3sState::Ready)),
            Verdict::Wait(_)
        ));
        assert!(matches!(
            before.rebooted(&status("2", SlotName::A, false, K3sState::Starting)),
            Verdict::Wait(_)
        ));
        assert_eq!(
            before.rebooted(&status("2", SlotName::A, false, K3sState::Ready)),
            Verdict::Reached
        );
        let bare = Before::of(&status("1", SlotName::A, false, K3sState::None));
        assert_eq!(
            bare.rebooted(&status("2", SlotName::A, false, K3sState::None)),
            Verdict::Reached
        );
    }

    #[test]
    fn rescue_is_reached_only_where_it_was_asked_for() {
        let before = Before::of(&status("1", SlotName::A, false, K3sState::Ready));
        let rescue = status("2", SlotName::Rescue, false, K3sState::None);
        for verdict in [before.rebooted(&rescue), before.other_slot(&rescue)] {
            assert_eq!(
                verdict,
                Verdict::WentBack("the rescue system runs: reboot asked for".into())
            );
        }
        // k3s was Ready and will not be.
        assert_eq!(before.rescued(&rescue), Verdict::Reached);
        assert!(matches!(
            before.rescued(&status("1", SlotName::A, false, K3sState::Ready)),
            Verdict::Wait(_)
        ));
        assert!(matches!(
            before.rescued(&status("2", SlotName::A, false, K3sState::Ready)),
            Verdict::WentBack(_)
        ));
    }

    #[test]
    fn an_upgrade_ends_committed_or_back() {
        let before = Before::of(&status("1", SlotName::A, false, K3sState::None));
        assert!(matches!(
            before.other_slot(&status("1", SlotName::A, false, K3sState::None)),
            Verdict::Wait(_)
        ));
        assert!(matches!(
            before.other_slot(&status("2", SlotName::B, true, K3sState::None)),
            Verdict::Wait(_)
        ));
        assert_eq!(
            before.other_slot(&status("2", SlotName::B, false, K3sState::None)),
            Verdict::Reached
        );
        let back = before.other_slot(&status("3", SlotName::A, false, K3sState::None));
        assert!(matches!(back, Verdict::WentBack(why) if why.contains("mesh not up")));
        let mut quoted = status("3", SlotName::A, false, K3sState::None);
        quoted.boot.reason = "went back from slot b: mesh not up by the deadline".into();
        let reason = quoted.boot.reason.clone();
        assert_eq!(before.other_slot(&quoted), Verdict::WentBack(reason));
    }
}
