//! What the roots signed: opened, and brought forward, never back.

use crate::releases;
use holdfast_core::cluster::ClusterId;
use holdfast_core::documents::{
    Document, DocumentError, DocumentSet, Lighthouses, Operators, Policy, Roots, accept,
};
use holdfast_core::signed::Signed;

/// The opened documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Who may ask what.
    pub operators: Operators,
    /// Where the lighthouses are.
    pub lighthouses: Lighthouses,
    /// Who may reach whom.
    pub policy: Policy,
}

impl Trusted {
    /// Opens a set that was accepted before.
    ///
    /// # Errors
    /// [`DocumentError`] of the first that does not open.
    pub fn open(
        set: &DocumentSet,
        roots: &Roots,
        cluster: ClusterId,
    ) -> Result<Self, DocumentError> {
        Ok(Self {
            operators: accept(&set.operators, roots, cluster, None)?,
            lighthouses: accept(&set.lighthouses, roots, cluster, None)?,
            policy: accept(&set.policy, roots, cluster, None)?,
        })
    }

    /// Operators, lighthouses, policy.
    pub fn generations(&self) -> [u64; 3] {
        [
            self.operators.generation,
            self.lighthouses.generation,
            self.policy.generation,
        ]
    }
}

/// What came of bringing documents forward.
#[derive(Debug)]
pub struct Merged {
    /// Each document in the newest form that is held.
    pub set: DocumentSet,
    /// The same, opened.
    pub trusted: Trusted,
    /// Why an offered document was not taken; the held one stays.
    pub refused: Vec<DocumentError>,
}

impl Merged {
    /// Refuses a set of which one is older than what was held once (`floors`: as
    /// [`Trusted::generations`]).
    ///
    /// # Errors
    /// [`DocumentError::Older`].
    pub fn not_below(self, floors: [u64; 3]) -> Result<Self, DocumentError> {
        let found = self.trusted.generations().into_iter().zip(floors);
        match found.into_iter().find(|(found, floor)| found < floor) {
            Some((found, held)) => Err(DocumentError::Older { found, held }),
            None => Ok(self),
        }
    }
}

fn newer<T: Document + Clone>(
    held: Option<&Signed<T>>,
    offered: &Signed<T>,
    roots: &Roots,
    cluster: ClusterId,
    refused: &mut Vec<DocumentError>,
) -> Result<(Signed<T>, T), DocumentError> {
    let kept = held.and_then(|h| Some((h, accept(h, roots, cluster, None).ok()?)));
    match (
        accept(
            offered,
            roots,
            cluster,
            kept.as_ref().map(|(_, d)| d.generation()),
        ),
        kept,
    ) {
        // Two of one generation: the first stays, whoever offers which how often.
        (Ok(doc), Some((held, kept))) if doc.generation() == kept.generation() => {
            Ok((held.clone(), kept))
        }
        (Ok(doc), _) => Ok((offered.clone(), doc)),
        (Err(e), Some((held, doc))) => {
            refused.push(e);
            Ok((held.clone(), doc))
        }
        (Err(e), None) => Err(e),
    }
}

/// Longest release list that is carried along, as base64: a block of 4096 bytes needs 5464.
const RELEASES_MAX: usize = 8 * 1024;

/// The release list to carry along: of two that a root signed the newer one, the held one of two
/// alike. Where none is held, anything that can be one by its length: whoever stores it checks it.
fn newer_list(
    held: Option<&DocumentSet>,
    offered: &DocumentSet,
    roots: &Roots,
    cluster: ClusterId,
) -> String {
    let generation = |list: &str| {
        let keys = releases::trusted(cluster, roots).ok()?;
        Some(releases::open(&keys, list).ok()?.0.generation)
    };
    let fits = offered.releases.len() <= RELEASES_MAX;
    match held {
        Some(held) if !fits || generation(&offered.releases) <= generation(&held.releases) => {
            held.releases.clone()
        }
        None if !fits => String::new(),
        _ => offered.releases.clone(),
    }
}

/// Takes of `offered` what is sound and not older than what is held.
///
/// # Errors
/// [`DocumentError`] when a document is refused and none is held in its place.
pub fn merge(
    held: Option<&DocumentSet>,
    offered: &DocumentSet,
    roots: &Roots,
    cluster: ClusterId,
) -> Result<Merged, DocumentError> {
    let mut refused = vec![];
    let r = &mut refused;
    let (operators, o) = newer(
        held.map(|h| &h.operators),
        &offered.operators,
        roots,
        cluster,
        r,
    )?;
    let (lighthouses, l) = newer(
        held.map(|h| &h.lighthouses),
        &offered.lighthouses,
        roots,
        cluster,
        r,
    )?;
    let releases = newer_list(held, offered, roots, cluster);
    let (policy, p) = newer(held.map(|h| &h.policy), &offered.policy, roots, cluster, r)?;
    Ok(Merged {
        set: DocumentSet {
            operators,
            lighthouses,
            policy,
            releases,
        },
        trusted: Trusted {
            operators: o,
            lighthouses: l,
            policy: p,
        },
        refused,
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use holdfast_core::documents::{Operator, Right};
    use holdfast_core::keys::PrivateKey;
    use holdfast_core::releases::{ReleaseList, add_signature};

    /// The cluster of this crate's tests.
    pub const CLUSTER: ClusterId = ClusterId([9; 16]);

    /// A key of this crate's tests.
    pub fn key(n: u8) -> PrivateKey {
        PrivateKey::from_bytes([n; 32])
    }

    /// Documents of one generation, signed by `signer`; the operator is key 1.
    pub fn set(generation: u64, signer: u8) -> DocumentSet {
        let operators = Operators {
            cluster: CLUSTER,
            generation,
            operators: vec![Operator {
                name: "ada".parse().unwrap(),
                key: key(1).public(),
                rights: vec![Right::All],
            }],
            former: vec![],
        };
        let lighthouses = Lighthouses {
            cluster: CLUSTER,
            generation,
            lighthouses: vec![],
        };
        let policy = Policy {
            cluster: CLUSTER,
            generation,
            rules: vec![],
            evicted: vec![],
            revoked: vec![],
        };
        DocumentSet {
            operators: Signed::sign(&operators, &key(signer)).unwrap(),
            lighthouses: Signed::sign(&lighthouses, &key(signer)).unwrap(),
            policy: Signed::sign(&policy, &key(signer)).unwrap(),
            releases: releases(generation, signer),
        }
    }

    /// A release list, signed by `signer`, as documents carry it.
    pub fn releases(generation: u64, signer: u8) -> String {
        use base64::Engine as _;
        let root = key(signer);
        let mut block = ReleaseList::new(CLUSTER.0, generation, &[[1; 32]])
            .unwrap()
            .encode();
        add_signature(&mut block, &root.public().0, |m| root.sign(m).0).unwrap();
        base64::engine::general_purpose::STANDARD.encode(block)
    }

    #[test]
    fn nor_back_behind_what_can_no_longer_be_read() {
        let roots = Roots(vec![key(7).public()]);
        let merged = |set| merge(None, &set, &roots, CLUSTER).unwrap();
        for floors in [[5; 3], [0, 0, 5], [4; 3]] {
            assert!(merged(set(5, 7)).not_below(floors).is_ok());
        }
        let old_policy = DocumentSet {
            policy: set(4, 7).policy,
            ..set(6, 7)
        };
        for old in [set(4, 7), old_policy] {
            let refused = merged(old).not_below([5; 3]).unwrap_err();
            assert!(matches!(
                refused,
                DocumentError::Older { found: 4, held: 5 }
            ));
        }
    }

    #[test]
    fn never_back_and_never_by_a_stranger() {
        let roots = Roots(vec![key(7).public()]);
        let held = set(5, 7);
        let merged = merge(Some(&held), &set(4, 7), &roots, CLUSTER).unwrap();
        assert_eq!(
            (merged.trusted.generations(), merged.refused.len()),
            ([5; 3], 3)
        );
        let merged = merge(Some(&held), &set(6, 8), &roots, CLUSTER).unwrap();
        assert_eq!(merged.trusted.generations(), [5; 3]);
        let mixed = DocumentSet {
            policy: set(9, 7).policy,
            ..set(4, 7)
        };
        let merged = merge(Some(&held), &mixed, &roots, CLUSTER).unwrap();
        assert_eq!(merged.trusted.generations(), [5, 5, 9]);
        assert!(merge(None, &set(6, 8), &roots, CLUSTER).is_err());
        // A second document of one generation does not replace the first.
        let policy = Policy {
            evicted: vec![key(3).public()],
            ..merged.trusted.policy
        };
        let fork = DocumentSet {
            policy: Signed::sign(&policy, &key(7)).unwrap(),
            ..mixed.clone()
        };
        let merged = merge(Some(&mixed), &fork, &roots, CLUSTER).unwrap();
        assert_eq!(merged.set.policy, mixed.policy);
        // Nor does an older release list, whatever comes with it, or one that no root signed.
        for list in [releases(4, 7), releases(9, 8), String::new()] {
            let mixed = DocumentSet {
                releases: list,
                ..set(6, 7)
            };
            let merged = merge(Some(&held), &mixed, &roots, CLUSTER).unwrap();
            assert_eq!(merged.set.releases, held.releases);
        }
        let merged = merge(Some(&held), &set(6, 7), &roots, CLUSTER).unwrap();
        assert_eq!(merged.set.releases, releases(6, 7));
        // What cannot be a release list is not stored.
        let long = DocumentSet {
            releases: "A".repeat(RELEASES_MAX + 1),
            ..set(6, 7)
        };
        let merged = merge(Some(&held), &long, &roots, CLUSTER).unwrap();
        assert_eq!(merged.set.releases, held.releases);
        assert!(
            merge(None, &long, &roots, CLUSTER)
                .unwrap()
                .set
                .releases
                .is_empty()
        );
    }
}
