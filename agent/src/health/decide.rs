//! What to do for a node that is out of reach, as a function of what is known and for how long.
//!
//! ```text
//! alone   no lighthouse and no member answers     -> race the paths anew, again and again
//!                                                 -> the agent anew, once
//!                                                 -> reboot, with growing pauses, then never again
//! deaf    its own control server does not answer  -> the mesh anew -> the agent anew
//! ```
//! Alone may mean that all is well here and the world is gone: workloads run on, nothing is written
//! and the slots keep their good name; reboots are few and end. Deaf without being alone is no ground
//! for a reboot: operators still come in over the connection to the lighthouse.

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
/// When the machine reboots, by how often it did before without finding anybody.
const ALONE: [Duration; 3] = [hours(24), hours(72), hours(168)];
/// A deaf system: mesh, agent.
const DEAF: [Duration; 2] = [minutes(2), minutes(5)];
/// After so long with company the reboots that were counted are forgotten: a link that comes and goes
/// by the day must not bring them again and again.
const WELL: Duration = hours(24);

/// What is known at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// A trial runs: its deadline decides.
    pub trial: bool,
    /// An upgrade is being written, or something else that no reboot may interrupt.
    pub busy: bool,
    /// An uplink has an address.
    pub address: bool,
    /// A lighthouse or a member answers.
    pub company: bool,
    /// The own control server answers.
    pub ears: bool,
    /// The rescue system runs; it is left after its hour by itself.
    pub rescue: bool,
    /// Reboots before this one for want of company.
    pub reboots: u32,
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
    Reboot,
    /// Forget the reboots that were counted.
    Forget,
}

/// Decides, at `now` since the kernel started.
pub fn step(memory: &mut Memory, facts: &Facts, now: Duration) -> Act {
    if facts.trial {
        *memory = Memory::default();
        return Act::Nothing;
    }
    let acts = [
        deaf(memory, facts, now),
        alone(memory, facts, now),
        well(memory, facts, now),
    ];
    let first = acts.into_iter().find(|act| *act != Act::Nothing);
    first.unwrap_or(Act::Nothing)
}

fn deaf(memory: &mut Memory, facts: &Facts, now: Duration) -> Act {
    if facts.ears {
        (memory.deaf_since, memory.deaf_steps) = (None, 0);
        return Act::Nothing;
    }
    let since = now.saturating_sub(*memory.deaf_since.get_or_insert(now));
    let steps = memory.deaf_steps;
    if facts.busy || DEAF.get(steps).is_none_or(|after| since < *after) {
        return Act::Nothing;
    }
    memory.deaf_steps += 1;
    match steps {
        0 => Act::MeshAnew,
        _ => Act::AgentAnew,
    }
}

fn alone(memory: &mut Memory, facts: &Facts, now: Duration) -> Act {
    if facts.company {
        memory.alone_since = None;
        (memory.raced, memory.races, memory.agent_anew) = (None, 0, false);
        return Act::Nothing;
    }
    let since = now.saturating_sub(*memory.alone_since.get_or_insert(now));
    let due = usize::try_from(facts.reboots)
        .ok()
        .and_then(|n| ALONE.get(n))
        .is_some_and(|after| since >= *after);
    if due && !facts.busy && !facts.rescue {
        return Act::Reboot;
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
    if !facts.company {
        memory.well_since = None;
        return Act::Nothing;
    }
    let since = now.saturating_sub(*memory.well_since.get_or_insert(now));
    match facts.reboots > 0 && since >= WELL {
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
        company: true,
        ears: true,
        rescue: false,
        reboots: 0,
    };

    /// What is done, and when in minutes, within `hours`; boots come and go as the acts say.
    fn lived(mut facts: Facts, hours: u64) -> Vec<(u64, Act)> {
        let (mut memory, mut boot, mut acts) = (Memory::default(), 0, vec![]);
        for t in (0..hours * 3600).step_by(30) {
            let act = step(&mut memory, &facts, Duration::from_secs(t - boot));
            match act {
                Act::Nothing => continue,
                Act::Reboot => {
                    facts.reboots += 1;
                    (memory, boot) = (Memory::default(), t);
                }
                Act::Forget => facts.reboots = 0,
                Act::Race | Act::MeshAnew | Act::AgentAnew => {}
            }
            acts.push((t / 60, act));
        }
        acts
    }

    fn reboots(acts: &[(u64, Act)]) -> Vec<u64> {
        let all = acts.iter().filter(|(_, a)| *a == Act::Reboot);
        all.map(|(t, _)| t / 60).collect()
    }

    #[test]
    fn a_node_that_is_well_does_nothing() {
        assert_eq!(lived(FINE, 1000), []);
        let counted = Facts { reboots: 2, ..FINE };
        assert_eq!(lived(counted, 100), [(24 * 60, Act::Forget)]);
    }

    #[test]
    fn a_dead_uplink_costs_three_reboots_in_all() {
        for address in [true, false] {
            let facts = Facts {
                company: false,
                address,
                ..FINE
            };
            let acts = lived(facts, 24 * 365);
            assert_eq!(reboots(&acts), [24, 24 + 72, 24 + 72 + 168], "{facts:?}");
        }
    }

    #[test]
    fn paths_are_raced_and_the_agent_begins_anew_once() {
        let facts = Facts {
            company: false,
            ..FINE
        };
        let acts = lived(facts, 24);
        assert_eq!(
            acts[..4],
            [
                (10, Act::Race),
                (30, Act::Race),
                (60, Act::AgentAnew),
                (70, Act::Race)
            ]
        );
        let anew = acts.iter().filter(|(_, a)| *a == Act::AgentAnew);
        assert_eq!(anew.count(), 1);
    }

    #[test]
    fn a_deaf_system_begins_mesh_and_agent_anew_and_no_more() {
        let facts = Facts {
            ears: false,
            ..FINE
        };
        assert_eq!(
            lived(facts, 24 * 30),
            [(2, Act::MeshAnew), (5, Act::AgentAnew)]
        );
    }

    #[test]
    fn a_router_that_is_switched_off_every_night_costs_nothing() {
        let (mut memory, mut facts) = (Memory::default(), FINE);
        for t in (0..90 * 24 * 3600).step_by(30) {
            facts.company = (t / 3600) % 24 >= 8;
            let act = step(&mut memory, &facts, Duration::from_secs(t));
            assert_ne!(act, Act::Reboot, "after {} h", t / 3600);
        }
    }

    #[test]
    fn a_trial_is_left_to_its_deadline_and_rescue_to_its_hour() {
        let lost = Facts {
            company: false,
            ears: false,
            ..FINE
        };
        assert_eq!(
            lived(
                Facts {
                    trial: true,
                    ..lost
                },
                100
            ),
            []
        );
        let rescue = Facts {
            rescue: true,
            ..lost
        };
        assert!(reboots(&lived(rescue, 1000)).is_empty());
    }

    proptest! {
        /// Whatever comes and goes: no reboot within a day of company, none while something is written,
        /// three at most until a whole day of company.
        #[test]
        fn reboots_are_rare(changes in proptest::collection::vec((1u64..3000, any::<[bool; 4]>()), 1..60)) {
            let (mut memory, mut facts, mut boot, mut t) = (Memory::default(), FINE, 0u64, 0u64);
            let mut last_company = 0u64;
            for (minutes, [company, ears, address, busy]) in changes {
                facts = Facts { company, ears, address, busy, ..facts };
                for _ in 0..minutes * 2 {
                    t += 30;
                    if company {
                        last_company = t;
                    }
                    match step(&mut memory, &facts, Duration::from_secs(t - boot)) {
                        Act::Reboot => {
                            prop_assert!(!busy);
                            prop_assert!(t - last_company >= 24 * 3600);
                            facts.reboots += 1;
                            prop_assert!(facts.reboots <= 3);
                            (memory, boot) = (Memory::default(), t);
                        }
                        Act::Forget => facts.reboots = 0,
                        _ => {}
                    }
                }
            }
        }
    }
}
