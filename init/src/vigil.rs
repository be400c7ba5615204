//! What init watches over while the system runs, as a function of time: a trial's deadline, the
//! agent's heartbeat, the quiet minutes after which a start counts as good, rescue's hour.
//!
//! ```text
//! trial:   no commit before the deadline      -> FailTrial (recorded, reboot)
//! any:     agent silent                       -> KillAgent (it is started again, with back-off)
//! any:     agent in trouble again and again
//!          over 5 minutes                     -> Reboot (not cleared: three such lead elsewhere)
//! good:    an agent that does not die         -> Reboot (the same)
//! good:    3 minutes without agent trouble    -> Quiet, once
//! good:    an hour without agent trouble      -> Settled, once
//! rescue:  an hour                            -> LeaveRescue (reboot into the slots)
//! ```
//! Times are since init started, on a clock that never jumps.

use std::time::Duration;

use holdfast_core::ipc::HEARTBEAT_LIMIT;
use holdfast_core::slots::{QUIET_SECONDS, RESCUE_SECONDS};

/// Room for an agent that has only just been started, on a slow and busy machine.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(90);
const SILENCE: Duration = Duration::from_secs(HEARTBEAT_LIMIT);
const QUIET: Duration = Duration::from_secs(QUIET_SECONDS);
const RESCUE: Duration = Duration::from_secs(RESCUE_SECONDS);
/// Rescue is left so long after the last look at a slot that is being written,
const WRITING: Duration = Duration::from_secs(600);
/// and at last after this: a writer that died leaves the same trace.
const RESCUE_MOST: Duration = Duration::from_secs(6 * RESCUE_SECONDS);
/// So many troubles, spread over so long, are beyond what restarts mend.
const TROUBLES: u32 = 8;
const TROUBLE_SPAN: Duration = Duration::from_secs(300);
/// A killed agent that is still there after so long hangs in the kernel.
const DYING: Duration = Duration::from_secs(60);
/// After so long without trouble the count begins anew.
const TROUBLE_FORGOTTEN: Duration = Duration::from_secs(600);

/// What kind of boot this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A proven slot.
    Good,
    /// A trial that has to be committed before this time.
    Trial(Duration),
    /// The rescue system.
    Rescue,
}

/// What has to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Record the reason and reboot.
    FailTrial(String),
    /// Record that this good system cannot be relied on, and reboot into another.
    GiveUp(String),
    /// Kill the agent, which is started again.
    KillAgent,
    /// Reboot.
    Reboot(String),
    /// Clear the count of starts, unless the slot is on probation.
    Quiet,
    /// End the slot's probation.
    Settled,
    /// Give the slots another start, and reboot.
    LeaveRescue,
}

/// The watcher's memory.
#[derive(Debug, Clone)]
pub struct Vigil {
    mode: Mode,
    probation: Duration,
    /// When rescue is left.
    leave: Duration,
    agent: Option<Agent>,
    /// When the agent last ended or was killed; its first start before that.
    trouble: Duration,
    troubles: u32,
    first_trouble: Duration,
    quiet_told: bool,
    settled_told: bool,
    ending: bool,
}

#[derive(Debug, Clone, Copy)]
struct Agent {
    heard: Duration,
    spoke: bool,
    killed: Option<Duration>,
}

impl Vigil {
    /// Begins to watch; a committed system has to last for so long.
    pub fn new(mode: Mode, probation: Duration) -> Self {
        Self {
            mode,
            probation,
            leave: RESCUE,
            agent: None,
            trouble: Duration::ZERO,
            troubles: 0,
            first_trouble: Duration::ZERO,
            quiet_told: false,
            settled_told: false,
            ending: false,
        }
    }

    /// The agent was started.
    pub fn agent_started(&mut self, now: Duration) {
        if self.troubles == 0 {
            // The quiet minutes are the agent's: a long check of the disk before it is none of them.
            self.trouble = now;
        }
        self.agent = Some(Agent {
            heard: now,
            spoke: false,
            killed: None,
        });
    }

    /// The agent said something.
    pub fn heartbeat(&mut self, now: Duration) {
        if let Some(agent) = &mut self.agent {
            agent.heard = now;
            agent.spoke = true;
        }
    }

    /// The agent ended, by itself or killed.
    pub fn agent_ended(&mut self, now: Duration) {
        self.agent = None;
        if self.troubles == 0 || now.saturating_sub(self.trouble) > TROUBLE_FORGOTTEN {
            self.troubles = 0;
            self.first_trouble = now;
        }
        self.troubles = self.troubles.saturating_add(1);
        self.trouble = now;
    }

    /// The trial was committed: from now on this is a good boot.
    pub fn committed(&mut self) {
        if matches!(self.mode, Mode::Trial(_)) {
            self.mode = Mode::Good;
        }
    }

    /// A slot is being written: rescue is not left meanwhile, for a while.
    pub fn writing(&mut self, now: Duration) {
        self.leave = self.leave.max(now + WRITING).min(RESCUE_MOST);
    }

    /// Time left of the trial, if this is one.
    pub fn trial_left(&self, now: Duration) -> Option<Duration> {
        match self.mode {
            Mode::Trial(deadline) => Some(deadline.saturating_sub(now)),
            _ => None,
        }
    }

    /// What has to be done at `now`; nothing more after a reboot was asked for.
    pub fn tick(&mut self, now: Duration) -> Option<Act> {
        if self.ending {
            return None;
        }
        let act = self.due(now);
        match act {
            Some(Act::FailTrial(_) | Act::Reboot(_) | Act::LeaveRescue) => self.ending = true,
            Some(Act::KillAgent) => {
                if let Some(agent) = &mut self.agent {
                    agent.killed = Some(now);
                }
            }
            Some(Act::Quiet) => self.quiet_told = true,
            Some(Act::Settled) => self.settled_told = true,
            Some(Act::GiveUp(_)) | None => {}
        }
        act
    }

    fn due(&self, now: Duration) -> Option<Act> {
        match self.mode {
            Mode::Trial(deadline) if now >= deadline => {
                let seconds = deadline.as_secs();
                return Some(Act::FailTrial(format!("not committed within {seconds} s")));
            }
            Mode::Rescue if now >= self.leave => return Some(Act::LeaveRescue),
            _ => {}
        }
        if let Some(agent) = &self.agent
            && agent.killed.is_none()
            && now.saturating_sub(agent.heard)
                >= if agent.spoke {
                    SILENCE
                } else {
                    FIRST_HEARTBEAT
                }
        {
            return Some(Act::KillAgent);
        }
        // A trial has its deadline; in rescue there is nothing better to reboot into.
        if self.mode == Mode::Good
            && let Some(killed) = self.agent.and_then(|a| a.killed)
            && now.saturating_sub(killed) >= DYING
        {
            return Some(Act::Reboot("the agent hangs and cannot be killed".into()));
        }
        if self.mode == Mode::Good
            && self.troubles >= TROUBLES
            && self.trouble.saturating_sub(self.first_trouble) >= TROUBLE_SPAN
            && now.saturating_sub(self.trouble) <= TROUBLE_FORGOTTEN
        {
            return Some(Act::Reboot(format!(
                "the agent failed {} times",
                self.troubles
            )));
        }
        let alive = self.agent.is_some_and(|a| a.spoke && a.killed.is_none());
        if self.mode == Mode::Good && alive {
            let untroubled = now.saturating_sub(self.trouble);
            if !self.quiet_told && untroubled >= QUIET {
                return Some(Act::Quiet);
            }
            if !self.settled_told && untroubled >= self.probation {
                return Some(Act::Settled);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::slots::SETTLED_SECONDS;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_quiet_good_boot_is_cleared_once_and_settles_once() {
        let mut vigil = Vigil::new(Mode::Good, s(SETTLED_SECONDS));
        vigil.agent_started(s(1));
        let mut acts = Vec::new();
        for t in 2..8000 {
            vigil.heartbeat(s(t));
            acts.extend(vigil.tick(s(t)).map(|act| (t, act)));
        }
        assert_eq!(
            acts,
            [
                (1 + QUIET_SECONDS, Act::Quiet),
                (1 + SETTLED_SECONDS, Act::Settled)
            ]
        );
    }

    #[test]
    fn silence_kills_the_agent_once_a_life() {
        let mut vigil = Vigil::new(Mode::Good, s(SETTLED_SECONDS));
        vigil.agent_started(s(0));
        vigil.heartbeat(s(5));
        let acts: Vec<_> = (6..80)
            .filter_map(|t| vigil.tick(s(t)).map(|a| (t, a)))
            .collect();
        assert_eq!(acts, [(5 + HEARTBEAT_LIMIT, Act::KillAgent)]);
        vigil.agent_ended(s(80));
        vigil.agent_started(s(81));
        assert_eq!(vigil.tick(s(82)), None);
    }

    #[test]
    fn an_agent_that_does_not_die_ends_in_a_reboot() {
        let mut vigil = Vigil::new(Mode::Good, s(SETTLED_SECONDS));
        vigil.agent_started(s(0));
        vigil.heartbeat(s(5));
        let acts: Vec<_> = (6..300).filter_map(|t| vigil.tick(s(t))).collect();
        assert!(
            matches!(acts[..], [Act::KillAgent, Act::Reboot(_)]),
            "{acts:?}"
        );
    }

    #[test]
    fn an_agent_that_keeps_failing_ends_in_a_reboot_uncleared() {
        let mut vigil = Vigil::new(Mode::Good, s(SETTLED_SECONDS));
        let mut acts = Vec::new();
        for t in (0..1200).step_by(30) {
            vigil.agent_started(s(t));
            vigil.heartbeat(s(t + 1));
            acts.extend(vigil.tick(s(t + 10)));
            vigil.agent_ended(s(t + 20));
        }
        assert!(matches!(acts[..], [Act::Reboot(_)]), "{acts:?}");
    }

    #[test]
    fn rescue_ends_after_its_hour() {
        let mut vigil = Vigil::new(Mode::Rescue, s(SETTLED_SECONDS));
        assert_eq!(vigil.tick(s(RESCUE_SECONDS - 1)), None);
        assert_eq!(vigil.tick(s(RESCUE_SECONDS)), Some(Act::LeaveRescue));
        assert_eq!(vigil.tick(s(RESCUE_SECONDS + 1)), None);
    }

    #[test]
    fn rescue_waits_for_a_slot_that_is_being_written_but_not_for_ever() {
        let mut vigil = Vigil::new(Mode::Rescue, s(SETTLED_SECONDS));
        vigil.writing(s(RESCUE_SECONDS - 5));
        assert_eq!(vigil.tick(s(RESCUE_SECONDS + 500)), None);
        vigil.writing(s(6 * RESCUE_SECONDS - 1));
        assert_eq!(vigil.tick(s(6 * RESCUE_SECONDS)), Some(Act::LeaveRescue));
    }

    proptest! {
        /// Whatever the agent does, only a commit before the deadline stops a trial from failing at it.
        #[test]
        fn only_a_commit_stops_the_deadline(
            deadline in 20u64..900,
            events in proptest::collection::vec((0u64..1000, 0u8..3), 0..60),
            commit in proptest::option::of(0u64..1000),
        ) {
            let mut vigil = Vigil::new(Mode::Trial(s(deadline)), s(SETTLED_SECONDS));
            let mut failed_at = None;
            for t in 0..1000 {
                if commit == Some(t) {
                    vigil.committed();
                }
                for (_, what) in events.iter().filter(|(at, _)| *at == t) {
                    match what {
                        0 => vigil.agent_started(s(t)),
                        1 => vigil.heartbeat(s(t)),
                        _ => vigil.agent_ended(s(t)),
                    }
                }
                if let Some(Act::FailTrial(_)) = vigil.tick(s(t)) {
                    failed_at = Some(t);
                }
            }
            let expected = if commit.is_some_and(|c| c <= deadline) { None } else { Some(deadline) };
            prop_assert_eq!(failed_at, expected);
        }
    }
}
