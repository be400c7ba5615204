//! Where the other lighthouses are. Names are looked up beside: a name server that hangs must keep
//! neither new members nor evictions from this one's mesh.

use crate::registry::Registry;
use futures_util::future::join_all;
use holdfast_core::documents::Lighthouse;
use holdfast_core::keys::{MeshKey, PublicKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Names are looked up this often while each of the others has a session: they may move,
const AGAIN: Duration = Duration::from_secs(60);
/// and this often, with the next address each time, while one has none.
const NEXT_ADDRESS: Duration = Duration::from_secs(20);
/// A resolver that takes longer has no answer.
const LOOKUP: Duration = Duration::from_secs(10);
/// Of one lighthouse, more addresses are not tried.
const MAX_FOUND: usize = 16;

/// Where each is sought now.
pub type Found = BTreeMap<MeshKey, SocketAddr>;
type Answer = Pin<Box<dyn Future<Output = Vec<SocketAddr>> + Send>>;
/// Looks one `host:port` up.
pub type Resolve = fn(String) -> Answer;

/// As the system does it.
pub fn system(name: String) -> Answer {
    Box::pin(async move {
        match tokio::net::lookup_host(&name).await {
            Ok(found) => found.take(MAX_FOUND).collect(),
            Err(error) => {
                tracing::debug!(name, %error, "not resolved");
                vec![]
            }
        }
    })
}

/// The addresses of one lighthouse, one after the other.
#[derive(Debug, Default)]
struct Seek {
    found: Vec<SocketAddr>,
    at: Option<SocketAddr>,
}

impl Seek {
    /// Takes an answer, none of which takes nothing away; without a session the next address has
    /// its turn.
    fn step(&mut self, found: Vec<SocketAddr>, session: bool) {
        if !found.is_empty() {
            self.found = found;
            self.found.truncate(MAX_FOUND);
        }
        let place = self
            .at
            .and_then(|at| self.found.iter().position(|f| *f == at));
        let next = match place {
            Some(place) if session => place,
            Some(place) => (place + 1) % self.found.len(),
            None => 0,
        };
        self.at = self.found.get(next).copied();
    }
}

async fn look_up(lighthouse: &Lighthouse, resolve: Resolve) -> Vec<SocketAddr> {
    let until = Instant::now() + LOOKUP;
    let names = lighthouse.udp.iter().take(MAX_FOUND);
    let answers = names.map(|name| timeout_at(until, resolve(name.clone())));
    let found = join_all(answers).await.into_iter();
    found.flat_map(Result::unwrap_or_default).collect()
}

/// Seeks them for ever and tells where; `sessions` are those who shook hands lately.
pub async fn seek(
    registry: Arc<Registry>,
    own: PublicKey,
    sessions: impl Fn() -> BTreeSet<MeshKey>,
    tell: watch::Sender<Found>,
    resolve: Resolve,
) {
    let mut changes = registry.watch();
    let mut seeks = BTreeMap::<MeshKey, Seek>::new();
    loop {
        let held = registry.held();
        let all = &held.lighthouses.lighthouses;
        let others: Vec<_> = all.iter().filter(|l| l.key != own).collect();
        seeks.retain(|key, _| others.iter().any(|l| l.mesh_key == *key));
        // A slow answer for one holds up none of the others.
        let mut lookups = tokio::task::JoinSet::new();
        for other in others.iter().copied().cloned() {
            lookups.spawn(async move { (other.mesh_key, look_up(&other, resolve).await) });
        }
        while let Some(answer) = lookups.join_next().await {
            let Ok((key, found)) = answer else { continue };
            let alive = sessions().contains(&key);
            seeks.entry(key).or_default().step(found, alive);
            tell.send_if_modified(|told| {
                let places = seeks.iter().filter_map(|(key, s)| Some((*key, s.at?)));
                let now: Found = places.collect();
                let news = *told != now;
                *told = now;
                news
            });
        }
        let alive = sessions();
        let all_here = others.iter().all(|l| alive.contains(&l.mesh_key));
        let due = Instant::now() + if all_here { AGAIN } else { NEXT_ADDRESS };
        // Another document may name others.
        while registry.held().lighthouses.generation == held.lighthouses.generation {
            match timeout_at(due, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::store::Embedded;
    use crate::testing::*;
    use holdfast_core::cluster::MeshIndex;
    use holdfast_core::signed::Signed;

    #[test]
    fn every_address_is_tried_until_there_is_a_session() {
        let [v6, v4]: [SocketAddr; 2] =
            ["[2001:db8::1]:1", "192.0.2.1:1"].map(|a| a.parse().unwrap());
        let mut seek = Seek::default();
        seek.step(vec![], false);
        assert_eq!(seek.at, None);
        for at in [v6, v4, v6, v4] {
            seek.step(vec![v6, v4], false);
            assert_eq!(seek.at, Some(at));
        }
        seek.step(vec![v6, v4], true);
        assert_eq!(seek.at, Some(v4));
        // A name server that fails takes nothing away.
        seek.step(vec![], true);
        assert_eq!(seek.at, Some(v4));
        seek.step(vec![], false);
        assert_eq!(seek.at, Some(v6));
        let moved: SocketAddr = "192.0.2.9:1".parse().unwrap();
        seek.step(vec![moved], true);
        assert_eq!(seek.at, Some(moved));
    }

    /// With lighthouses besides the first: key and UDP name.
    pub async fn registry(dir: &std::path::Path, others: &[(u8, &str)]) -> Arc<Registry> {
        let mut set = set(&policy(1), &identity());
        let mut list = lighthouses(1, &identity(), 8443, 51820);
        for (i, (n, udp)) in others.iter().enumerate() {
            list.lighthouses.push(Lighthouse {
                name: format!("l{n}"),
                https: vec!["127.0.0.1:1".into()],
                udp: vec![(*udp).into()],
                key: key(*n).public(),
                mesh_key: MeshKey([*n; 32]),
                index: MeshIndex::try_from(2 + u16::try_from(i).unwrap()).unwrap(),
            });
        }
        set.lighthouses = Signed::sign(&list, &key(ROOT)).unwrap();
        let store = Arc::new(Embedded::open(&dir.join("store")).await.unwrap());
        Arc::new(Registry::open(store, cluster(), Some(set)).await.unwrap())
    }

    #[tokio::test]
    async fn one_name_that_hangs_keeps_no_other_from_being_found() {
        let dir = tempfile::tempdir().unwrap();
        let names = [(205, "hangs.example:1"), (206, "quick.example:1")];
        let registry = registry(dir.path(), &names).await;
        let resolve: Resolve = |name| {
            if name.starts_with("hangs") {
                return Box::pin(std::future::pending());
            }
            Box::pin(async { vec![SocketAddr::from(([192, 0, 2, 6], 1))] })
        };
        let (tell, mut told) = watch::channel(Found::new());
        let task = tokio::spawn(seek(registry, identity().key, BTreeSet::new, tell, resolve));
        // Well within the patience with the other.
        let soon = Duration::from_secs(LOOKUP.as_secs() / 2);
        let found = tokio::time::timeout(soon, told.wait_for(|f| !f.is_empty()));
        let wanted = Found::from([(MeshKey([206; 32]), SocketAddr::from(([192, 0, 2, 6], 1)))]);
        assert_eq!(*found.await.unwrap().unwrap(), wanted);
        task.abort();
    }
}
