//! Any changes, told as differences, come to the whole list.

use super::become_held;
use super::journal::{Change, Journal};
use super::state::State;
use super::views::{self, Encoded, View};
use crate::held::Held;
use crate::rows::MemberRow;
use crate::testing::{cluster, grant, identity, key, member, policy, record, set};
use holdfast_core::api::{MemberEntry, MemberList};
use holdfast_core::documents::{Policy, Rule};
use holdfast_core::grant::MemberRecord;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::GroupName;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MEMBERS: u8 = 3;
const GROUPS: [&str; 3] = ["a", "b", "c"];
/// From whom to whom, by place in `GROUPS`.
const RULES: [&[(usize, usize)]; 5] = [&[], &[(0, 1)], &[(1, 1)], &[(0, 1), (1, 2)], &[(2, 2)]];

#[derive(Debug, Clone)]
enum Step {
    /// Joins, or again with another record: member, bits of groups, counter.
    Join(u8, u8, u64),
    Forget(u8),
    Moves(u8, u16),
    /// Bits of members put out, place in `RULES`.
    Policy(u8, usize),
    Publish(u32),
    /// One of those who are told asks.
    Ask(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..MEMBERS;
    prop_oneof![
        3 => (n.clone(), 0..8u8, 1..4u64).prop_map(|(n, g, c)| Step::Join(n, g, c)),
        1 => n.clone().prop_map(Step::Forget),
        1 => (n, 1..4u16).prop_map(|(n, p)| Step::Moves(n, p)),
        2 => (0..1u8 << MEMBERS, 0..RULES.len()).prop_map(|(e, r)| Step::Policy(e, r)),
        3 => (0..9u32).prop_map(Step::Publish),
        4 => (0..=GROUPS.len() + 1).prop_map(Step::Ask),
    ]
}

fn of(bits: u8) -> Vec<GroupName> {
    let set = |n: &usize| bits >> n & 1 == 1;
    (0..GROUPS.len())
        .filter(set)
        .map(|n| GROUPS[n].parse().unwrap())
        .collect()
}

/// Whoever is told: an operator, or one in some groups.
struct Told {
    groups: Option<Vec<GroupName>>,
    revision: u64,
    holds: BTreeMap<PublicKey, MemberEntry>,
}

fn read(list: &Encoded) -> MemberList {
    serde_json::from_slice(&list.body(None).concat()).unwrap()
}

fn entries(list: MemberList) -> BTreeMap<PublicKey, MemberEntry> {
    let all = list.members.into_iter();
    all.map(|m| (m.member.record.open_self().unwrap().0.signing_key, m))
        .collect()
}

impl Told {
    fn view(&self, state: &State, change: Option<&Change>) -> View {
        match &self.groups {
            None => View::All,
            Some(groups) => View::of(groups, &state.held.policy.rules, change),
        }
    }

    /// As in `Registry::listed`.
    fn ask(&mut self, state: &State, journal: &mut Journal) {
        let revision = journal.revision();
        if let Some(change) = journal.since(self.revision) {
            if !change.is_empty() {
                journal.seen();
            }
            let view = self.view(state, Some(&change));
            let list = read(&views::delta(
                state,
                &view,
                self.revision,
                revision,
                &change,
            ));
            assert_eq!(list.since, Some(self.revision));
            for key in &list.gone {
                self.holds.remove(key);
            }
            self.holds.extend(entries(list));
        } else {
            journal.seen();
            self.holds = entries(read(&views::whole(
                state,
                &self.view(state, None),
                revision,
            )));
        }
        self.revision = revision;
    }
}

fn run(steps: &[Step]) {
    let open = |policy: &Policy| Held::open(set(policy, &identity()), &cluster()).unwrap();
    let mut state = State::new(open(&policy(1)).into(), [].into(), [].into(), [].into());
    let mut journal = Journal::new(5);
    let kinds = [None, Some(0), Some(1), Some(2), Some(5)];
    let mut all = kinds.map(|bits| Told {
        groups: bits.map(of),
        revision: 0,
        holds: BTreeMap::new(),
    });
    let mut generation = 1;
    for step in steps {
        let id = |n: &u8| key(n + 1).public();
        match step {
            Step::Join(n, bits, counter) => {
                let mut grant = grant("g1", 50, 9);
                grant.groups = of(*bits);
                let record = MemberRecord {
                    counter: *counter,
                    ..record(n + 1, &format!("n{n}"), 16 + u16::from(*n), &grant)
                };
                let row = MemberRow {
                    member: member(&record, &grant, 50),
                    joined: 0,
                };
                journal.add(&super::join::before(&state, &id(n)));
                state.put(id(n), row);
            }
            Step::Forget(n) => {
                journal.add(&super::join::before(&state, &id(n)));
                state.remove(&id(n));
                state.endpoints.remove(&id(n));
            }
            Step::Moves(n, port) if state.members.contains_key(&id(n)) => {
                state
                    .endpoints
                    .insert(id(n), ([192, 0, 2, 1], *port).into());
                journal.add(&super::join::before(&state, &id(n)));
            }
            Step::Moves(..) => {}
            Step::Policy(out, rules) => {
                generation += 1;
                let rule = |(from, to): &(usize, usize)| {
                    let group = |n: usize| GROUPS[n].parse().unwrap();
                    Rule::new(group(*from), group(*to))
                };
                let new = Policy {
                    rules: RULES[*rules].iter().map(rule).collect(),
                    evicted: (0..MEMBERS)
                        .filter(|n| out >> n & 1 == 1)
                        .map(|n| id(&n))
                        .collect(),
                    ..policy(generation)
                };
                journal.add(&become_held(&mut state, open(&new)));
            }
            Step::Publish(step) => {
                journal.publish(*step);
            }
            Step::Ask(who) => all[*who].ask(&state, &mut journal),
        }
    }
    journal.publish(0);
    for told in &mut all {
        told.ask(&state, &mut journal);
        let whole = entries(read(&views::whole(&state, &told.view(&state, None), 0)));
        assert_eq!(told.holds, whole, "{:?}", told.groups);
    }
}

#[test]
fn rules_that_held_for_a_moment_leave_nothing_behind() {
    use Step::{Ask, Forget, Join, Policy, Publish};
    let (there, told) = (Join(0, 0, 1), Publish(0));
    for steps in [
        [
            Policy(0, 1),
            told.clone(),
            Policy(0, 0),
            Ask(1),
            Policy(0, 1),
            Ask(1),
        ],
        [
            Policy(0, 0),
            told.clone(),
            Policy(0, 1),
            Ask(1),
            Policy(0, 0),
            Ask(1),
        ],
        [told.clone(), Ask(1), Forget(0), told, Policy(0, 1), Ask(1)],
    ] {
        run(&[std::slice::from_ref(&there), &steps[..]].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_changes_told_as_differences_come_to_the_whole_list(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        run(&steps);
    }
}
