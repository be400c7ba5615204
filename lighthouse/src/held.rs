//! The documents that the lighthouse holds: opened, verified, never older than before.

use crate::dir::ClusterFile;
use crate::refusal::Refusal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use holdfast_core::api::ApiErrorKind;
use holdfast_core::documents::{
    Document, DocumentError, DocumentSet, Lighthouses, Operators, Policy, accept,
};
use holdfast_core::loader_keys::LoaderKeys;
use holdfast_core::releases::ReleaseList;

/// What the roots signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// As it travels.
    pub set: DocumentSet,
    /// Who may ask what.
    pub operators: Operators,
    /// Where the lighthouses are.
    pub lighthouses: Lighthouses,
    /// Who may reach whom, who is out.
    pub policy: Policy,
    /// Release keys.
    pub releases: ReleaseList,
}

/// Why a set is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// One of the three JSON documents.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The release list.
    #[error("release list: {0}")]
    Releases(String),
    /// Something older than what is held.
    #[error("{document}: generation {found} is older than {held}, which is held")]
    Older {
        /// Which document.
        document: &'static str,
        /// What came.
        found: u64,
        /// What is held.
        held: u64,
    },
    /// The same generation twice.
    #[error("{document}: another one of generation {generation} is held; sign a higher generation")]
    Fork {
        /// Which document.
        document: &'static str,
        /// Of both.
        generation: u64,
    },
}

impl From<HeldError> for Refusal {
    fn from(error: HeldError) -> Self {
        let kind = match error {
            HeldError::Older { .. } | HeldError::Fork { .. } => ApiErrorKind::Older,
            _ => ApiErrorKind::Denied,
        };
        Self::new(kind, error.to_string())
    }
}

fn open_releases(text: &str, cluster: &ClusterFile) -> Result<ReleaseList, HeldError> {
    let failed = |e: &dyn std::fmt::Display| HeldError::Releases(e.to_string());
    let bytes = B64.decode(text).map_err(|e| failed(&e))?;
    let roots: Vec<[u8; 32]> = cluster.roots.iter().map(|k| k.0).collect();
    let trusted = LoaderKeys::new(cluster.id.0, &roots).map_err(|e| failed(&e))?;
    ReleaseList::verify(&bytes, &trusted).map_err(|e| failed(&e))
}

impl Held {
    /// Opens a set against the cluster's roots.
    ///
    /// # Errors
    /// [`HeldError`].
    pub fn open(set: DocumentSet, cluster: &ClusterFile) -> Result<Self, HeldError> {
        let roots = cluster.roots();
        Ok(Self {
            operators: accept(&set.operators, &roots, cluster.id, None)?,
            lighthouses: accept(&set.lighthouses, &roots, cluster.id, None)?,
            policy: accept(&set.policy, &roots, cluster.id, None)?,
            releases: open_releases(&set.releases, cluster)?,
            set,
        })
    }

    /// Operators, lighthouses, policy, releases.
    #[must_use]
    pub fn generations(&self) -> [u64; 4] {
        [
            self.operators.generation(),
            self.lighthouses.generation(),
            self.policy.generation(),
            self.releases.generation,
        ]
    }

    /// Whether `new` may take this one's place.
    ///
    /// # Errors
    /// [`HeldError::Older`], [`HeldError::Fork`].
    pub fn may_become(&self, new: &Self) -> Result<(), HeldError> {
        let same = [
            self.operators == new.operators,
            self.lighthouses == new.lighthouses,
            self.policy == new.policy,
            self.releases == new.releases,
        ];
        let names = ["operators", "lighthouses", "policy", "releases"];
        for (i, document) in names.into_iter().enumerate() {
            let (held, found) = (self.generations()[i], new.generations()[i]);
            if found < held {
                return Err(HeldError::Older {
                    document,
                    found,
                    held,
                });
            }
            if found == held && !same[i] {
                return Err(HeldError::Fork {
                    document,
                    generation: held,
                });
            }
        }
        Ok(())
    }

    /// Of each document the newer one.
    #[must_use]
    pub fn merged(mut self, other: &Self) -> Self {
        let (own, others) = (self.generations(), other.generations());
        if others[0] > own[0] {
            self.operators = other.operators.clone();
            self.set.operators = other.set.operators.clone();
        }
        if others[1] > own[1] {
            self.lighthouses = other.lighthouses.clone();
            self.set.lighthouses = other.set.lighthouses.clone();
        }
        if others[2] > own[2] {
            self.policy = other.policy.clone();
            self.set.policy = other.set.policy.clone();
        }
        if others[3] > own[3] {
            self.releases = other.releases;
            self.set.releases = other.set.releases.clone();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, identity, key, policy, set};
    use holdfast_core::signed::Signed;

    #[test]
    fn takes_newer_ones_and_refuses_older_forked_and_unsigned_ones() {
        let open = |p| Held::open(set(&p, &identity()), &cluster()).unwrap();
        let (one, two) = (open(policy(1)), open(policy(2)));
        one.may_become(&two).unwrap();
        one.may_become(&one).unwrap();
        assert!(matches!(
            two.may_become(&one),
            Err(HeldError::Older {
                document: "policy",
                found: 1,
                held: 2
            })
        ));
        let mut other = policy(2);
        other.evicted.push(key(1).public());
        assert!(matches!(
            two.may_become(&open(other)),
            Err(HeldError::Fork { .. })
        ));

        let mut forged = set(&policy(3), &identity());
        forged.policy = Signed::sign(&policy(3), &key(77)).unwrap();
        assert!(matches!(
            Held::open(forged, &cluster()),
            Err(HeldError::Document(_))
        ));
        let mut cut = set(&policy(3), &identity());
        cut.releases.truncate(100);
        assert!(matches!(
            Held::open(cut, &cluster()),
            Err(HeldError::Releases(_))
        ));
        assert_eq!(one.clone().merged(&two), two);
        assert_eq!(two.clone().merged(&one), two);
    }
}
