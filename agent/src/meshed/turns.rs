//! Which of a lighthouse's UDP addresses is used. Names are looked up beside: a resolver that is
//! slow holds up neither the peers nor the word that the mesh is up.

use holdfast_core::documents::Lighthouse;
use holdfast_mesh::MeshKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often a name that does not resolve is looked up again.
const RESOLVE: Duration = Duration::from_secs(2);
/// Without a session for so long, a lighthouse's next address is tried.
const NEXT_ADDRESS: Duration = Duration::from_secs(20);
/// Lookups at a time: each holds a thread, and the disk's work needs some too.
const LOOKUPS: usize = 3;

/// Of one lighthouse.
#[derive(Debug)]
struct Turn {
    at: usize,
    /// Without a session, or asked last, since.
    since: Instant,
    resolved: Option<SocketAddr>,
    /// The last lookup failed; what was found before stays.
    failed: bool,
    asking: bool,
}

impl Turn {
    fn new(now: Instant) -> Self {
        Self {
            at: 0,
            since: now,
            resolved: None,
            failed: false,
            asking: false,
        }
    }

    /// Which of `known` addresses is to be looked up now, if one is.
    fn step(&mut self, known: usize, session: bool, now: Instant) -> Option<usize> {
        if session {
            self.since = now;
            return None;
        }
        let patience = if self.resolved.is_some() && !self.failed {
            NEXT_ADDRESS
        } else {
            RESOLVE
        };
        if self.asking || known == 0 || now.saturating_duration_since(self.since) < patience {
            return None;
        }
        self.since = now;
        self.at = (self.at + 1) % known;
        Some(self.at)
    }
}

type Answer = Pin<Box<dyn Future<Output = Option<SocketAddr>> + Send>>;
/// Looks a name up.
type Resolve = fn(String) -> Answer;

#[derive(Debug)]
struct Found {
    key: MeshKey,
    address: Option<SocketAddr>,
}

/// Of all lighthouses.
#[derive(Debug)]
pub struct Turns {
    all: BTreeMap<MeshKey, Turn>,
    tell: mpsc::Sender<Found>,
    found: mpsc::Receiver<Found>,
    under_way: usize,
    resolve: Resolve,
}

impl Default for Turns {
    fn default() -> Self {
        Self::with(|name| Box::pin(resolve(name)))
    }
}

impl Turns {
    /// `resolve` looks names up.
    fn with(resolve: Resolve) -> Self {
        let (tell, found) = mpsc::channel(LOOKUPS);
        Self {
            all: BTreeMap::new(),
            tell,
            found,
            under_way: 0,
            resolve,
        }
    }

    /// Where a lighthouse is sought now.
    pub fn endpoint(&mut self, l: &Lighthouse, session: bool, now: Instant) -> Option<SocketAddr> {
        let fresh = !self.all.contains_key(&l.mesh_key);
        let turn = self.all.entry(l.mesh_key).or_insert(Turn::new(now));
        let at = if fresh {
            Some(0)
        } else {
            turn.step(l.udp.len(), session, now)
        };
        let name = at.and_then(|at| l.udp.get(at));
        match name.map(|name| (name, name.parse())) {
            None => {}
            Some((_, Ok(address))) => (turn.resolved, turn.failed) = (Some(address), false),
            // Its turn comes again.
            Some(_) if self.under_way >= LOOKUPS => {}
            Some((name, Err(_))) => {
                turn.asking = true;
                self.under_way += 1;
                let (key, tell) = (l.mesh_key, self.tell.clone());
                let answer = (self.resolve)(name.clone());
                tokio::spawn(async move {
                    let address = answer.await;
                    let _ = tell.send(Found { key, address }).await;
                });
            }
        }
        turn.resolved
    }

    /// Returns when a lookup has ended.
    pub async fn changed(&mut self) {
        // The other end is ours: it never closes.
        let Some(found) = self.found.recv().await else {
            return;
        };
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(turn) = self.all.get_mut(&found.key) {
            turn.asking = false;
            turn.failed = found.address.is_none();
            turn.resolved = found.address.or(turn.resolved);
            turn.since = Instant::now();
        }
    }
}

async fn resolve(name: String) -> Option<SocketAddr> {
    match tokio::net::lookup_host(&name).await {
        Ok(mut found) => found.next(),
        Err(e) => {
            tracing::debug!(name, "not resolved: {e}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::key;
    use holdfast_core::cluster::MeshIndex;

    fn lighthouse(udp: &[&str]) -> Lighthouse {
        Lighthouse {
            name: "l".into(),
            https: vec![],
            udp: udp.iter().map(ToString::to_string).collect(),
            key: key(5).public(),
            mesh_key: holdfast_core::keys::MeshKey([5; 32]),
            index: MeshIndex::LIGHTHOUSE,
        }
    }

    #[test]
    fn addresses_take_turns_until_there_is_a_session() {
        let l = lighthouse(&["192.0.2.1:1", "192.0.2.2:2"]);
        let [one, two]: [SocketAddr; 2] =
            ["192.0.2.1:1", "192.0.2.2:2"].map(|a| a.parse().unwrap());
        let mut turns = Turns::default();
        let begin = Instant::now();
        assert_eq!(turns.endpoint(&l, false, begin), Some(one));
        assert_eq!(turns.endpoint(&l, true, begin + NEXT_ADDRESS), Some(one));
        let later = begin + NEXT_ADDRESS + NEXT_ADDRESS;
        assert_eq!(turns.endpoint(&l, false, later), Some(two));
        assert_eq!(turns.endpoint(&l, false, later), Some(two));
        assert_eq!(turns.endpoint(&l, false, later + NEXT_ADDRESS), Some(one));
        assert_eq!(turns.endpoint(&lighthouse(&[]), false, later), Some(one));
    }

    #[tokio::test]
    async fn a_name_is_looked_up_beside_and_once_at_a_time() {
        let l = lighthouse(&["localhost:7"]);
        let mut turns = Turns::default();
        let begin = Instant::now();
        assert_eq!(turns.endpoint(&l, false, begin), None);
        assert_eq!(turns.endpoint(&l, false, begin + RESOLVE), None);
        assert_eq!(turns.under_way, 1);
        turns.changed().await;
        assert_eq!(turns.under_way, 0);
        let found = turns.endpoint(&l, false, begin).map(|a| a.port());
        assert_eq!(found, Some(7));
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_at_every_failure() {
        use std::sync::atomic::{AtomicU8, Ordering};
        static ASKED: AtomicU8 = AtomicU8::new(0);
        // It moves, then there is no answer, then it has moved again.
        let resolve: Resolve = |_| {
            Box::pin(async {
                let n = ASKED.fetch_add(1, Ordering::Relaxed);
                (n != 2).then(|| SocketAddr::from(([192, 0, 2, n], 7)))
            })
        };
        let l = lighthouse(&["l.example:7"]);
        let mut turns = Turns::with(resolve);
        let mut now = Instant::now();
        assert_eq!(turns.endpoint(&l, false, now), None);
        turns.changed().await;
        let ip = |turns: &mut Turns, session, now| {
            turns.endpoint(&l, session, now).map(|a| a.ip().to_string())
        };
        assert_eq!(ip(&mut turns, true, now).as_deref(), Some("192.0.2.0"));
        now += NEXT_ADDRESS;
        assert_eq!(ip(&mut turns, true, now).as_deref(), Some("192.0.2.0"));
        assert_eq!(turns.under_way, 0, "while it answers nobody asks");
        // Lost: asked again, and taken.
        now += NEXT_ADDRESS;
        ip(&mut turns, false, now);
        turns.changed().await;
        assert_eq!(ip(&mut turns, false, now).as_deref(), Some("192.0.2.1"));
        // No answer takes nothing away, and the next question comes soon.
        now += NEXT_ADDRESS;
        ip(&mut turns, false, now);
        turns.changed().await;
        assert_eq!(ip(&mut turns, false, now).as_deref(), Some("192.0.2.1"));
        now += RESOLVE + RESOLVE;
        ip(&mut turns, false, now);
        turns.changed().await;
        assert_eq!(ip(&mut turns, false, now).as_deref(), Some("192.0.2.3"));
    }
}
