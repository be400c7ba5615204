//! Whom to call, and when.

use super::{AT_ONCE, Generations, LEAST};
use holdfast_core::keys::PublicKey;
use holdfast_mesh::MeshKey;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// A member with a session is called again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// A member that took nothing is called again after this.
const RETRY: Duration = Duration::from_secs(30);
/// Between two members that are sought while no lighthouse answers.
const ALONE: Duration = Duration::from_secs(30);

/// A member that may be called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Other {
    /// Its signing key,
    pub signing: PublicKey,
    /// its key in the mesh,
    pub mesh: MeshKey,
    /// and its address there.
    pub at: Ipv4Addr,
}

/// When whom was called last, with what.
#[derive(Debug, Default)]
pub(super) struct Calls {
    made: BTreeMap<MeshKey, (Instant, Generations)>,
    with_session: BTreeSet<MeshKey>,
    /// Those whose last call came to nothing: they have not heard what it was about.
    missed: BTreeSet<MeshKey>,
    alone: Option<Instant>,
    turn: usize,
}

impl Calls {
    /// Whom to call now. `sessions`: members there is a session with; `alone`: no lighthouse has one.
    pub(super) fn due(
        &mut self,
        others: &[Other],
        sessions: &BTreeSet<MeshKey>,
        alone: bool,
        held: Generations,
        now: Instant,
    ) -> Vec<Other> {
        let mut due = vec![];
        for other in others.iter().filter(|o| sessions.contains(&o.mesh)) {
            let fresh = !self.with_session.contains(&other.mesh);
            let wanted = match self.made.get(&other.mesh) {
                None => true,
                Some((at, _)) if now.duration_since(*at) < LEAST => false,
                Some((at, told)) => {
                    let rest = match self.missed.contains(&other.mesh) {
                        true => RETRY,
                        false => AGAIN,
                    };
                    fresh || *told != held || now.duration_since(*at) >= rest
                }
            };
            if wanted {
                due.push(*other);
            } else if fresh {
                // Called too lately: as new as before when its time has come.
                continue;
            }
            self.with_session.insert(other.mesh);
        }
        self.with_session.retain(|key| sessions.contains(key));
        let rest = self.alone.is_none_or(|at| now.duration_since(at) >= ALONE);
        if alone && rest && !others.is_empty() {
            self.alone = Some(now);
            self.turn = (self.turn + 1) % others.len();
            due.push(others[self.turn]);
        }
        due.truncate(AT_ONCE);
        for other in &due {
            self.made.insert(other.mesh, (now, held));
        }
        self.made
            .retain(|key, _| others.iter().any(|o| o.mesh == *key));
        self.missed.retain(|key| self.made.contains_key(key));
        due
    }

    /// What became of a call.
    pub(super) fn ended(&mut self, member: MeshKey, heard: bool) {
        match heard {
            true => self.missed.remove(&member),
            false => self.missed.insert(member),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::key;

    #[test]
    fn members_are_called_when_they_are_met_and_when_something_changed() {
        let other = |n: u8| Other {
            signing: key(n).public(),
            mesh: MeshKey([n; 32]),
            at: Ipv4Addr::LOCALHOST,
        };
        let all = [other(1), other(2), other(3)];
        let session = |keys: &[u8]| keys.iter().map(|n| MeshKey([*n; 32])).collect();
        let (mut calls, begin) = (Calls::default(), Instant::now());
        let mut due = |sessions: &[u8], alone, policy, secs| {
            let now = begin + Duration::from_secs(secs);
            let due = calls.due(&all, &session(sessions), alone, [1, 1, policy], now);
            due.iter().map(|o| o.mesh.0[0]).collect::<Vec<_>>()
        };
        assert_eq!(due(&[1], false, 1, 0), [1]);
        assert_eq!(due(&[1, 2], false, 1, 1), [2]);
        assert!(due(&[1, 2], false, 1, 60).is_empty());
        // A newer policy goes to both, a session that comes back is a new one.
        assert_eq!(due(&[1, 2], false, 2, 61), [1, 2]);
        assert!(due(&[1], false, 2, 62).is_empty());
        assert!(due(&[1, 2], false, 2, 63).is_empty());
        assert_eq!(due(&[1, 2], false, 2, 70), [2]);
        assert_eq!(due(&[1, 2], false, 2, 662), [1]);
        // Alone: one after the other, in peace.
        let sought: Vec<_> = (700..830).flat_map(|s| due(&[], true, 2, s)).collect();
        assert_eq!(sought.len(), 5);
        assert!([1, 2, 3].iter().all(|n| sought.contains(n)), "{sought:?}");
    }

    #[test]
    fn a_member_that_had_no_place_for_the_news_is_called_again_soon() {
        let other = Other {
            signing: key(1).public(),
            mesh: MeshKey([1; 32]),
            at: Ipv4Addr::LOCALHOST,
        };
        let session = BTreeSet::from([other.mesh]);
        let (mut calls, now) = (Calls::default(), Instant::now());
        let due = |calls: &mut Calls, at| {
            let due = calls.due(&[other], &session, false, [1, 1, 2], now + at);
            !due.is_empty()
        };
        assert!(due(&mut calls, Duration::ZERO));
        calls.ended(other.mesh, false);
        assert!(!due(&mut calls, RETRY / 2) && due(&mut calls, RETRY));
        calls.ended(other.mesh, true);
        assert!(!due(&mut calls, RETRY * 3));
    }
}
