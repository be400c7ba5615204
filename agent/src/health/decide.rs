//! What to do for a node that is out of reach, as a function of what is known and for how long.
//!
//! ```text
//! alone   no lighthouse and no member answers     -> race the paths anew, again and again
//!                                                 -> the agent anew, once
//!                                                 -> reboot, with growing pauses, then never again
//! deaf    its own control server does not answer  -> the mesh anew -> the agent anew -> reboot
//!                                                 -> after two of them: the other slot, or rescue
//! ```
//! Alone may mean that all is well here and the world is gone: workloads run on, nothing is written
//! and the slots keep their good name; reboots are few and end. Deaf is this system's own fault: there
//! another slot may do better.

use std::time::Duration;

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

const fn hours(n: u64) -> Duration {
    minutes(60 * n)
}

/// When paths are raced anew: first after this, then after twice as long, up to
const RACE: Duration = minutes(10);
/// this.
const RACE_MOST: Duration = hours(1);
/// When the agent is started anew for want of company.
const AGENT: Duration = hours(1);
/// When the machine reboots: by how often it did before without finding anybody. Its own network is
/// stuck where not even the router answers; else a reboot hardly helps, and workloads pay for it.
const STUCK: [Duration; 4] = [hours(2), hours(12), hours(72), hours(168)];
const ALONE: [Duration; 3] = [hours(24), hours(72), hours(168)];

/// A deaf system: mesh, agent, reboot.
const DEAF: [Duration; 3] = [minutes(2), minutes(5), minutes(20)];
/// So many reboots did not help: another system may.
const DEAF_REBOOTS: u32 = 2;
/// After so long with company and ears, what was counted is forgotten.
const WELL: Duration = minutes(15);

/// What is known at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// A trial runs: its deadline decides.
    pub trial: bool,
    /// An upgrade is being written, or something else that no reboot may interrupt.
    pub busy: bool,
    /// An uplink has an address.
    pub address: bool,
    /// A router answers; none: there is none to ask.
    pub router: Option<bool>,
    /// A lighthouse or a member answers.
    pub company: bool,
    /// The own control server answers.
    pub ears: bool,
    /// Workloads run: k3s is Ready.
    pub workloads: bool,
    /// The rescue system runs.
    pub rescue: bool,
    /// Reboots before this one for want of company.
    pub alone_reboots: u32,
    /// Reboots before this one for want of ears.
    pub deaf_reboots: u32,
}

/// What is remembered from one look to the next, and by the next agent of this boot. Times are since
/// the kernel started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    alone_since: Option<Duration>,
    raced: Option<Duration>,
    races: u32,
    agent_anew: bool,
    deaf_since: Option<Duration>,
    deaf_steps: usize,
    well_since: Option<Duration>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Try every path anew.
    Race,
    /// End the mesh and begin it anew.
    MeshAnew,
    /// End the agent; init starts it anew.
    AgentAnew,
    /// Reboot, orderly; the slot is not to blame.
    Reboot(Why),
    /// The next start is another system's.
    GiveUp,
    /// Forget the reboots that were counted.
    Forget,
}

/// Why a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody answers.
    Alone,
    /// The own control server does not.
    Deaf,
}

/// Decides, at `now` since the kernel started.
pub fn step(memory: &mut Memory, facts: &Facts, now: Duration) -> Act {
    if facts.trial {
        *memory = Memory::default();
        return Act::Nothing;
    }
    match (deaf(memory, facts, now), alone(memory, facts, now)) {
        (Act::Nothing, act) | (act, _) if act != Act::Nothing => return act,
        _ => {}
    }
    well(memory, facts, now)
}

fn deaf(memory: &mut Memory, facts: &Facts, now: Duration) -> Act {
    if facts.ears {
        (memory.deaf_since, memory.deaf_steps) = (None, 0);
        return Act::Nothing;
    }
    let since = now.saturating_sub(*memory.deaf_since.get_or_insert(now));
    let steps = memory.deaf_steps;
    if DEAF.get(steps).is_none_or(|after| since < *after) {
        return Act::Nothing;
    }
    let act = match steps {
        0 => Act::MeshAnew,
        1 => Act::AgentAnew,
        _ if facts.busy || facts.rescue => return Act::Nothing,
        _ if facts.deaf_reboots < DEAF_REBOOTS => Act::Reboot(Why::Deaf),
        // They run, and rescue would end them.
        _ if facts.workloads => return Act::Nothing,
        _ => Act::GiveUp,
    };
    memory.deaf_steps += 1;
    act
}

fn alone(memory: &mut Memory, facts: &Facts, now: Duration) -> Act {
    if facts.company {
        memory.alone_since = None;
        (memory.raced, memory.races, memory.agent_anew) = (None, 0, false);
        return Act::Nothing;
    }
    let since = now.saturating_sub(*memory.alone_since.get_or_insert(now));
    let table: &[Duration] = match facts.router {
        Some(false) if facts.address => &STUCK,
        _ => &ALONE,
    };
    let reboots = facts.alone_reboots as usize;
    if !facts.busy && !facts.rescue && table.get(reboots).is_some_and(|after| since >= *after) {
        return Act::Reboot(Why::Alone);
    }
    if !facts.address {
        // Nothing to race over; the network waits for its link or its lease by itself.
        return Act::Nothing;
    }
    if !memory.agent_anew && !facts.busy && since >= AGENT {
        memory.agent_anew = true;
        return Act::AgentAnew;
    }
    let pause = RACE.saturating_mul(1 << memory.races.min(8)).min(RACE_MOST);
    let last = memory.raced.or(memory.alone_since).unwrap_or(now);
    if now.saturating_sub(last) >= pause {
        memory.raced = Some(now);
        memory.races = memory.races.saturating_add(1);
        return Act::Race;
    }
    Act::Nothing
}

fn well(memory: &mut Memory, facts: &Facts, now: Duration) -> Act {
    if !facts.company || !facts.ears {
        memory.well_since = None;
        return Act::Nothing;
    }
    let since = now.saturating_sub(*memory.well_since.get_or_insert(now));
    let counted = facts.alone_reboots > 0 || facts.deaf_reboots > 0;
    match counted && since >= WELL {
        true => Act::Forget,
        false => Act::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FINE: Facts = Facts {
        trial: false,
        busy: false,
        address: true,
        router: Some(true),
        company: true,
        ears: true,
        workloads: true,
        rescue: false,
        alone_reboots: 0,
        deaf_reboots: 0,
    };

    /// What is done, and when, in `hours`; agents and boots come and go as the acts say.
    fn lived(mut facts: Facts, hours: u64) -> Vec<(u64, Act)> {
        let (mut memory, mut boot, mut acts) = (Memory::default(), 0, vec![]);
        for t in (0..hours * 3600).step_by(30) {
            let now = Duration::from_secs(t - boot);
            let act = step(&mut memory, &facts, now);
            match act {
                Act::Nothing => continue,
                Act::Reboot(why) => {
                    match why {
                        Why::Alone => facts.alone_reboots += 1,
                        Why::Deaf => facts.deaf_reboots += 1,
                    }
                    (memory, boot) = (Memory::default(), t);
                }
                Act::GiveUp => (memory, boot, facts.rescue) = (Memory::default(), t, true),
                Act::Forget => (facts.alone_reboots, facts.deaf_reboots) = (0, 0),
                Act::Race | Act::MeshAnew | Act::AgentAnew => {}
            }
            acts.push((t / 60, act));
        }
        acts
    }

    fn reboots(acts: &[(u64, Act)]) -> Vec<u64> {
        acts.iter()
            .filter(|(_, a)| matches!(a, Act::Reboot(_)))
            .map(|(t, _)| t / 60)
            .collect()
    }

    #[test]
    fn a_node_that_is_well_does_nothing() {
        assert_eq!(lived(FINE, 1000), []);
        let counted = Facts {
            alone_reboots: 2,
            ..FINE
        };
        assert_eq!(lived(counted, 10), [(15, Act::Forget)]);
    }

    #[test]
    fn a_dead_uplink_costs_three_reboots_in_all() {
        for (address, router) in [(true, Some(true)), (false, None), (true, None)] {
            let facts = Facts {
                company: false,
                address,
                router,
                ..FINE
            };
            let acts = lived(facts, 24 * 365);
            assert_eq!(reboots(&acts), [24, 24 + 72, 24 + 72 + 168], "{facts:?}");
            assert!(!acts.iter().any(|(_, a)| *a == Act::GiveUp));
        }
    }

    #[test]
    fn a_router_that_does_not_answer_is_worth_an_earlier_one() {
        let facts = Facts {
            company: false,
            router: Some(false),
            ..FINE
        };
        let acts = lived(facts, 24 * 365);
        assert_eq!(reboots(&acts), [2, 14, 86, 254]);
        let first: Vec<_> = acts.iter().take(5).collect();
        assert_eq!(
            first,
            [
                &(10, Act::Race),
                &(30, Act::Race),
                &(60, Act::AgentAnew),
                &(70, Act::Race),
                &(120, Act::Reboot(Why::Alone))
            ]
        );
    }

    #[test]
    fn a_deaf_system_ends_in_another_one() {
        let facts = Facts {
            ears: false,
            workloads: false,
            ..FINE
        };
        let acts: Vec<_> = lived(facts, 24).into_iter().map(|(_, a)| a).collect();
        use Act::{AgentAnew, GiveUp, MeshAnew, Reboot};
        let round = [MeshAnew, AgentAnew];
        assert_eq!(acts[..2], round);
        assert_eq!(acts[2], Reboot(Why::Deaf));
        assert_eq!(acts[5], Reboot(Why::Deaf));
        assert_eq!(acts[8], GiveUp);
        // In rescue nothing better is left.
        assert_eq!(acts[9..], round);
        let busy = Facts {
            workloads: true,
            ..facts
        };
        assert!(!lived(busy, 24 * 30).iter().any(|(_, a)| *a == GiveUp));
    }

    #[test]
    fn a_trial_is_left_to_its_deadline() {
        let facts = Facts {
            trial: true,
            company: false,
            ears: false,
            ..FINE
        };
        assert_eq!(lived(facts, 100), []);
    }

    proptest! {
        /// Whatever comes and goes, there is no reboot within two hours of company and ears, none while
        /// something is written, and never many.
        #[test]
        fn reboots_are_rare(changes in proptest::collection::vec((1u64..600, any::<[bool; 5]>()), 1..60)) {
            let (mut memory, mut facts, mut boot, mut t) = (Memory::default(), FINE, 0u64, 0u64);
            let (mut fine, mut count) = (0u64, 0);
            for (minutes, [company, ears, address, router, busy]) in changes {
                facts = Facts { company, ears, address, busy, router: Some(router), ..facts };
                for _ in 0..minutes * 2 {
                    t += 30;
                    if company && ears {
                        fine = t;
                    }
                    match step(&mut memory, &facts, Duration::from_secs(t - boot)) {
                        Act::Reboot(why) => {
                            prop_assert!(!busy);
                            let least = if why == Why::Deaf { 20 * 60 } else { 2 * 3600 };
                            prop_assert!(t - fine >= least, "{} after {}", t, fine);
                            match why {
                                Why::Alone => facts.alone_reboots += 1,
                                Why::Deaf => facts.deaf_reboots += 1,
                            }
                            count += 1;
                            (memory, boot) = (Memory::default(), t);
                        }
                        Act::GiveUp => {
                            prop_assert!(!facts.workloads);
                        }
                        Act::Forget => (facts.alone_reboots, facts.deaf_reboots) = (0, 0),
                        _ => {}
                    }
                }
            }
            prop_assert!(count <= 2 * (t / 3600) + 1);
        }
    }
}
