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
/// Of one name, more are not tried.
const MAX_FOUND: usize = 16;
/// Lookups at a time: each holds a thread, and the disk's work needs some too.
const LOOKUPS: usize = 3;

/// Of one lighthouse.
#[derive(Debug)]
struct Turn {
    /// Which name's turn it is.
    at: usize,
    /// All that the last good answer named, in the resolver's order.
    found: Vec<SocketAddr>,
    /// Which of them is tried.
    pick: usize,
    /// Without a session, or another address tried last, since.
    tried: Instant,
    /// Without a session, or asked last, since.
    asked: Instant,
    /// The last lookup failed; what was found before stays.
    failed: bool,
    asking: bool,
    /// What a lookup brought, until it is looked at.
    answer: Option<Vec<SocketAddr>>,
}

impl Turn {
    fn new(now: Instant) -> Self {
        Self {
            at: 0,
            found: vec![],
            pick: 0,
            tried: now,
            asked: now,
            failed: false,
            asking: false,
            answer: None,
        }
    }

    fn resolved(&self) -> Option<SocketAddr> {
        self.found.get(self.pick).copied()
    }

    /// Which of `known` addresses is to be looked up now, if one is. Before that the others that
    /// the last one has are tried: one address family may lead nowhere.
    fn step(&mut self, known: usize, session: bool, now: Instant) -> Option<usize> {
        if session {
            (self.tried, self.asked) = (now, now);
            return None;
        }
        let tried = now.saturating_duration_since(self.tried) >= NEXT_ADDRESS;
        let more = self.pick + 1 < self.found.len();
        if tried && (more || self.failed && self.pick > 0) {
            self.pick = if more { self.pick + 1 } else { 0 };
            self.tried = now;
            return None;
        }
        let due = if self.found.is_empty() || self.failed {
            now.saturating_duration_since(self.asked) >= RESOLVE
        } else {
            tried
        };
        if self.asking || known == 0 || !due {
            return None;
        }
        self.asked = now;
        self.at = (self.at + 1) % known;
        Some(self.at)
    }

    /// Takes an answer; an empty one takes nothing away.
    fn take(&mut self, found: Vec<SocketAddr>, now: Instant) {
        self.failed = found.is_empty();
        self.asked = now;
        if !found.is_empty() {
            (self.found, self.pick, self.tried) = (found, 0, now);
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Vec<SocketAddr>> + Send>>;
/// Looks a name up.
type Resolve = fn(String) -> Answer;

#[derive(Debug)]
struct Found {
    key: MeshKey,
    addresses: Vec<SocketAddr>,
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
        if let Some(answer) = turn.answer.take() {
            turn.take(answer, now);
        }
        let at = if fresh {
            Some(0)
        } else {
            turn.step(l.udp.len(), session, now)
        };
        let name = at.and_then(|at| l.udp.get(at));
        match name.map(|name| (name, name.parse())) {
            None => {}
            Some((_, Ok(address))) => turn.take(vec![address], now),
            // Its turn comes again.
            Some(_) if self.under_way >= LOOKUPS => {}
            Some((name, Err(_))) => {
                turn.asking = true;
                self.under_way += 1;
                let (key, tell) = (l.mesh_key, self.tell.clone());
                let answer = (self.resolve)(name.clone());
                tokio::spawn(async move {
                    let addresses = answer.await;
                    let _ = tell.send(Found { key, addresses }).await;
                });
            }
        }
        turn.resolved()
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
            turn.answer = Some(found.addresses);
        }
    }
}

async fn resolve(name: String) -> Vec<SocketAddr> {
    match tokio::net::lookup_host(&name).await {
        Ok(found) => found.take(MAX_FOUND).collect(),
        Err(e) => {
            tracing::debug!(name, "not resolved: {e}");
            vec![]
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
    async fn every_address_of_a_name_is_tried_before_the_next_name() {
        use std::sync::atomic::{AtomicU8, Ordering};
        static ASKED: AtomicU8 = AtomicU8::new(0);
        // The third lookup fails.
        let resolve: Resolve = |name| {
            Box::pin(async move {
                let n = if name.starts_with('a') { 1 } else { 2 };
                if ASKED.fetch_add(1, Ordering::Relaxed) == 2 {
                    return vec![];
                }
                let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 7));
                vec![v6, SocketAddr::from(([192, 0, 2, n as u8], 7))]
            })
        };
        let l = lighthouse(&["a.example:7", "b.example:7"]);
        let mut turns = Turns::with(resolve);
        let mut now = Instant::now();
        let mut seen = vec![];
        turns.endpoint(&l, false, now);
        for _ in 0..8 {
            if turns.under_way > 0 {
                turns.changed().await;
            }
            let at = turns.endpoint(&l, false, now).map(|a| a.ip().to_string());
            // While lookups fail, what was found is tried on in turn.
            if at.is_some() && seen.last() != at.as_ref() {
                seen.extend(at);
            }
            now += NEXT_ADDRESS;
        }
        let wanted = [
            "2001:db8::1",
            "192.0.2.1",
            "2001:db8::2",
            "192.0.2.2",
            "2001:db8::2",
        ];
        assert_eq!(seen[..wanted.len()], wanted);
        assert!(ASKED.load(Ordering::Relaxed) >= 3);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_at_every_failure() {
        use std::sync::atomic::{AtomicU8, Ordering};
        static ASKED: AtomicU8 = AtomicU8::new(0);
        // It moves, then there is no answer, then it has moved again.
        let resolve: Resolve = |_| {
            Box::pin(async {
                let n = ASKED.fetch_add(1, Ordering::Relaxed);
                let found = (n != 2).then(|| SocketAddr::from(([192, 0, 2, n], 7)));
                found.into_iter().collect()
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
