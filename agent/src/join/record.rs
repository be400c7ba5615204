//! What a node makes of an offer: checked against the seed's roots, then a signed record.

use super::trouble::Trouble;
use crate::documents::{Merged, merge};
use crate::{identity, releases};
use holdfast_core::api::Offer;
use holdfast_core::documents::DocumentSet;
use holdfast_core::grant::{Grant, Member, MemberRecord, verify};
use holdfast_core::seed::Seed;
use holdfast_core::signed::Signed;
use holdfast_core::state::Identity;

/// A record that the node's own checks accept, with what they were made against.
#[derive(Debug)]
pub struct Ready {
    /// Record and grant.
    pub member: Member,
    /// The record.
    pub record: MemberRecord,
    /// The grant.
    pub grant: Grant,
    /// The documents.
    pub documents: Merged,
}

/// Checks an offer and signs the record. `held`: documents of the same cluster from before; `floors`:
/// the generations behind which they never go back.
/// `counter`: greater than that of any record signed before.
///
/// # Errors
/// [`Trouble`] says which check failed.
pub fn prepare(
    seed: &Seed,
    identity: &Identity,
    (held, floors): (Option<&DocumentSet>, [u64; 3]),
    offer: &Offer,
    counter: u64,
) -> Result<Ready, Trouble> {
    let documents = merge(held, &offer.documents, &seed.roots(), seed.cluster_id)
        .and_then(|merged| merged.not_below(floors))
        .map_err(|e| Trouble::untrusted(format!("the lighthouse's documents do not hold: {e}")))?;
    let keys = releases::trusted(seed.cluster_id, &seed.roots()).map_err(|e| Trouble::local(&e))?;
    releases::open(&keys, &documents.set.releases).map_err(|e| {
        Trouble::untrusted(format!(
            "the lighthouse's release list does not hold: {e:#}"
        ))
    })?;
    let (grant, _) = offer
        .grant
        .open_self()
        .map_err(|e| Trouble::untrusted(format!("the lighthouse's grant does not hold: {e}")))?;
    let Grant { token, role, .. } = &grant;
    if grant.id != seed.grant || *token != seed.token.public() {
        return Err(Trouble::mismatch(format!(
            "the seed's token does not belong to grant {}, which the lighthouse has under {}",
            seed.grant, grant.id
        )));
    }
    if *role != seed.role {
        return Err(Trouble::mismatch(format!(
            "role = {:?} in the seed, but the grant allows {role}",
            seed.role.as_str()
        )));
    }
    let key = identity.signing.public();
    let granted = grant
        .name_at(offer.index)
        .map_err(|e| Trouble::mismatch(format!("the grant's names: {e}")))?;
    let name = match (&seed.name, &granted) {
        (Some(wanted), Some(granted)) if wanted != granted => {
            return Err(Trouble::mismatch(format!(
                "name = {:?} in the seed, but the grant allows {granted} only",
                wanted.as_str()
            )));
        }
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) => identity::default_name(&key).map_err(|e| Trouble::local(&e))?,
    };
    let record = MemberRecord {
        cluster: seed.cluster_id,
        grant: grant.id.clone(),
        name,
        index: offer.index,
        mesh_key: identity::mesh_public(identity),
        signing_key: key,
        counter,
        via: None,
        own: None,
    };
    let record = record.owned(&identity.signing);
    let signed = Signed::sign(&record, &seed.token).map_err(|e| Trouble::local(&e.into()))?;
    let member = Member {
        record: signed,
        grant: offer.grant.clone(),
    };
    let trusted = &documents.trusted;
    verify(
        &member,
        seed.cluster_id,
        &trusted.operators,
        &trusted.policy,
    )
    .map_err(|e| Trouble::untrusted(format!("no peer would accept this node: {e}")))?;
    Ok(Ready {
        member,
        record,
        grant,
        documents,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::{CLUSTER, key, set};
    use holdfast_core::cluster::MeshIndex;
    use holdfast_core::names::Role;

    fn seed() -> Seed {
        let mut seed = crate::seed::fuzz::seed();
        seed.cluster_id = CLUSTER;
        seed.name = Some("n1".parse().unwrap());
        seed.token = key(2);
        seed.roots = vec![key(7).public()];
        seed.lighthouses[0].key = key(5).public();
        seed
    }

    fn offer(operator: u8, root: u8, change: impl FnOnce(&mut Grant)) -> Offer {
        let mut grant = Grant {
            cluster: CLUSTER,
            id: "g1".parse().unwrap(),
            token: key(2).public(),
            role: Role::Bare,
            groups: vec![],
            name: None,
            names: None,
            first: MeshIndex::FIRST_NODE,
            last: MeshIndex::LAST,
            uses: 1,
            not_after: 0,
        };
        change(&mut grant);
        Offer {
            grant: Signed::sign(&grant, &key(operator)).unwrap(),
            index: MeshIndex::FIRST_NODE,
            documents: set(1, root),
            time: 5,
        }
    }

    fn identity() -> Identity {
        Identity {
            signing: key(3),
            mesh: key(4),
            machine: None,
            other: Default::default(),
        }
    }

    #[test]
    fn a_sound_offer_becomes_a_record() {
        let ready = prepare(
            &seed(),
            &identity(),
            (None, [0; 3]),
            &offer(1, 7, |_| {}),
            9,
        )
        .unwrap();
        assert_eq!(
            (ready.record.name.as_str(), ready.record.counter),
            ("n1", 9)
        );
        assert!(ready.record.is_owned());
        let nameless = Seed {
            name: None,
            ..seed()
        };
        let series = |g: &mut Grant| {
            g.names = Some(holdfast_core::grant::NameSeries {
                prefix: "shelf".parse().unwrap(),
                start: 7,
            });
            g.last = MeshIndex::try_from(20).unwrap();
        };
        let ready = prepare(
            &nameless,
            &identity(),
            (None, [0; 3]),
            &offer(1, 7, series),
            9,
        )
        .unwrap();
        assert_eq!(ready.record.name.as_str(), "shelf-07");
        let named = prepare(
            &seed(),
            &identity(),
            (None, [0; 3]),
            &offer(1, 7, series),
            9,
        )
        .unwrap_err();
        assert_eq!(named.state, "bad-seed");
        let ready = prepare(
            &nameless,
            &identity(),
            (None, [0; 3]),
            &offer(1, 7, |_| {}),
            9,
        )
        .unwrap();
        assert!(ready.record.name.as_str().starts_with("node-"));
    }

    #[test]
    fn a_hostile_lighthouse_gets_no_record() {
        let state = |offer: Offer| {
            prepare(&seed(), &identity(), (None, [0; 3]), &offer, 9)
                .unwrap_err()
                .state
        };
        assert_eq!(state(offer(1, 8, |_| {})), "untrusted-lighthouse");
        assert_eq!(state(offer(8, 7, |_| {})), "untrusted-lighthouse");
        assert_eq!(
            state(offer(1, 7, |g| g.token = key(9).public())),
            "bad-seed"
        );
        assert_eq!(state(offer(1, 7, |g| g.role = Role::Server)), "bad-seed");
        assert_eq!(
            state(offer(1, 7, |g| g.name = Some("n2".parse().unwrap()))),
            "bad-seed"
        );
        let outside = Offer {
            index: MeshIndex::LIGHTHOUSE,
            ..offer(1, 7, |_| {})
        };
        assert_eq!(state(outside), "untrusted-lighthouse");
        let mut forged = offer(1, 7, |_| {});
        forged.documents.releases = crate::documents::tests::releases(1, 8);
        assert_eq!(state(forged.clone()), "untrusted-lighthouse");
        forged.documents.releases = "A".repeat(1 << 20);
        assert_eq!(state(forged), "untrusted-lighthouse");
    }

    #[test]
    fn old_documents_are_not_taken_back() {
        let held = set(5, 7);
        let ready = prepare(
            &seed(),
            &identity(),
            (Some(&held), [0; 3]),
            &offer(1, 7, |_| {}),
            9,
        )
        .unwrap();
        assert_eq!(ready.documents.trusted.generations(), [5; 3]);
    }
}
