//! What is handed out once: places in the mesh, generations of images.

use crate::cluster_dir::ClusterDir;
use crate::exit::Exit;
use anyhow::{Context as _, Result};
use holdfast_core::cluster::{ClusterId, MeshIndex};
use serde::{Deserialize, Serialize};

/// `counters.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// The mesh index that the next grant begins with.
    pub next_index: u16,
    /// The generation of the last image built.
    pub generation: u64,
}

impl Counters {
    /// Before the first node and the first image.
    pub fn fresh() -> Self {
        Self {
            next_index: MeshIndex::FIRST_NODE.get(),
            generation: 0,
        }
    }

    /// Takes `uses` indexes of cluster `id`: the first and the last.
    pub fn take_indexes(&mut self, uses: u32, id: ClusterId) -> Result<(MeshIndex, MeshIndex)> {
        let most = id.last_index().get();
        let first = self.next_index;
        let last = u16::try_from(uses)
            .ok()
            .filter(|uses| *uses > 0)
            .and_then(|uses| first.checked_add(uses - 1))
            .filter(|last| *last <= most);
        let Some(last) = last else {
            let left = u32::from(most) + 1 - u32::from(first);
            return Err(Exit::Usage.error(format!(
                "{uses} uses need as many places in the mesh; this cluster has {left} left"
            )));
        };
        self.next_index = last + 1;
        let index = |n| MeshIndex::try_from(n).map_err(anyhow::Error::msg);
        Ok((index(first)?, index(last)?))
    }
}

impl ClusterDir {
    /// The generation of the next image: as given, else one more than the last; taken at once.
    pub fn take_generation(&self, given: Option<u64>) -> Result<u64> {
        let _lock = self.lock()?;
        let mut counters = self.counters()?;
        let generation = match given {
            Some(generation) => generation,
            None => counters
                .generation
                .checked_add(1)
                .context("counters.json: there is no generation after the last one")?,
        };
        if generation > counters.generation {
            counters.generation = generation;
            self.save_counters(&counters)?;
        }
        Ok(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_dir::ClusterConfig;

    #[test]
    fn indexes_are_handed_out_once_and_run_out() {
        let id = ClusterId([1; 16]);
        let mut counters = Counters::fresh();
        let (a, b) = counters.take_indexes(3, id).unwrap();
        assert_eq!((a.get(), b.get()), (16, 18));
        let (c, _) = counters.take_indexes(1, id).unwrap();
        assert_eq!(c.get(), 19);
        let error = counters.take_indexes(5000, id).unwrap_err().to_string();
        assert!(error.contains("4075 left"), "{error}");
        assert!(counters.take_indexes(0, id).is_err());
        counters.next_index = id.last_index().get();
        assert_eq!(counters.take_indexes(1, id).unwrap().1, id.last_index());
        assert!(counters.take_indexes(1, id).is_err());
        let wide = ClusterId::wide([1; 16]);
        assert_eq!(
            counters.take_indexes(12_282, wide).unwrap().1,
            MeshIndex::LAST
        );
    }

    #[test]
    fn generations_are_handed_out_once() {
        let tmp = tempfile::tempdir().unwrap();
        let cluster = ClusterDir {
            path: tmp.path().to_path_buf(),
            config: ClusterConfig {
                version: 1,
                name: "demo".parse().unwrap(),
                id: ClusterId([1; 16]),
                dual_stack: false,
                roots: vec![],
                api: vec![],
                other_apis: Default::default(),
            },
        };
        cluster.save_counters(&Counters::fresh()).unwrap();
        let mut taken: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    // Every other one says which it wants: the counter must not fall back.
                    let given = (n % 2 == 1).then_some(n);
                    let cluster = &cluster;
                    scope.spawn(move || (given, cluster.take_generation(given).unwrap()))
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap())
                .filter_map(|(given, got)| given.is_none().then_some(got))
                .collect()
        });
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 4);
        let last = cluster.counters().unwrap().generation;
        assert!(last >= 7);
        assert_eq!(cluster.take_generation(Some(last + 9)).unwrap(), last + 9);
        assert_eq!(cluster.take_generation(Some(2)).unwrap(), 2);
        assert_eq!(cluster.take_generation(None).unwrap(), last + 10);
    }
}
