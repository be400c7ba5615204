use super::*;
use crate::documents::tests::{CLUSTER, key, set};
use crate::lighthouse::tests::doc;
use holdfast_core::api::MemberEntry;
use holdfast_core::cluster::MeshIndex;
use holdfast_core::documents::Roots;
use holdfast_core::grant::{Grant, MemberRecord};
use holdfast_core::keys::MeshKey;
use holdfast_core::names::Role;
use holdfast_core::signed::Signed;

fn entry(operator: u8, signing: u8, counter: u64) -> MemberEntry {
    let grant = Grant {
        cluster: CLUSTER,
        id: "g1".parse().unwrap(),
        token: key(2).public(),
        role: Role::Bare,
        groups: vec![],
        name: None,
        names: None,
        first: MeshIndex::FIRST_NODE,
        last: MeshIndex::LAST,
        uses: 9,
        not_after: 0,
    };
    let record = MemberRecord {
        cluster: CLUSTER,
        grant: grant.id.clone(),
        name: "n1".parse().unwrap(),
        index: MeshIndex::FIRST_NODE,
        mesh_key: MeshKey([4; 32]),
        signing_key: key(signing).public(),
        counter,
        via: None,
        own: None,
    };
    MemberEntry {
        member: Member {
            record: Signed::sign(&record, &key(2)).unwrap(),
            grant: Signed::sign(&grant, &key(operator)).unwrap(),
        },
        endpoint: None,
    }
}

/// Of node 3, in no group.
fn admission() -> Admission {
    doc().admission.unwrap()
}

#[test]
fn only_granted_members_are_kept_and_each_once() {
    let roots = Roots(vec![key(7).public()]);
    let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
    let (good, newer) = (entry(1, 3, 1), entry(1, 3, 2));
    let mut list = MemberList {
        revision: 1,
        since: None,
        lasting: true,
        gone: vec![],
        documents: None,
        members: vec![good.clone(), newer.clone(), good.clone(), entry(1, 5, 1)],
        generations: [1; 4],
        time: 1,
    };
    let kept = worth_keeping(&list, &[], &admission(), &trusted, &Known::default());
    assert_eq!(kept.members.len(), 2);
    assert!(kept.members.iter().any(|m| m.member == newer.member));
    assert!(kept.unvouched.is_none());
    // A grant that no operator signed, over and over.
    list.members = vec![entry(8, 6, 1); MAX + 5];
    list.members[3] = good;
    let kept = worth_keeping(&list, &[], &admission(), &trusted, &Known::default());
    assert_eq!(kept.members.len(), 1);
    assert!(
        kept.unvouched
            .unwrap()
            .starts_with(&format!("{}, ", MAX + 4))
    );
}

#[test]
fn what_changed_is_applied_to_what_is_held_and_counts_no_more_than_a_list() {
    let roots = Roots(vec![key(7).public()]);
    let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
    let held = |e: MemberEntry| CachedMember {
        member: e.member,
        endpoint: None,
        other: Default::default(),
    };
    let before = [
        held(entry(1, 3, 2)),
        held(entry(1, 4, 1)),
        held(entry(1, 5, 1)),
        // No operator lets it in any more.
        held(entry(8, 6, 1)),
    ];
    let list = MemberList {
        revision: 8,
        since: Some(7),
        lasting: true,
        // An older record, a new member, one that nobody let in.
        members: vec![entry(1, 3, 1), entry(1, 9, 1), entry(8, 10, 1)],
        gone: vec![key(4).public()],
        documents: None,
        generations: [1; 4],
        time: 1,
    };
    let known = Known::default();
    let kept = worth_keeping(&list, &before, &admission(), &trusted, &known);
    let keys: Vec<_> = kept
        .members
        .iter()
        .map(|m| {
            let record = &known.open(&m.member).unwrap().record;
            (record.signing_key, record.counter)
        })
        .collect();
    let mut wanted = [3u8, 5, 9].map(|n| (key(n).public(), if n == 3 { 2 } else { 1 }));
    wanted.sort();
    assert_eq!(keys, wanted);
    assert!(kept.unvouched.unwrap().starts_with("1, "));
}

#[test]
fn who_is_forgotten_stays_and_is_lacking_unless_it_is_out_or_its_place_is_anothers() {
    let roots = Roots(vec![key(7).public()]);
    let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
    let at = |signing: u8, counter: u64, place: u8| {
        let (mut record, _) = entry(1, signing, counter)
            .member
            .record
            .open_self()
            .unwrap();
        record.name = format!("n{place}").parse().unwrap();
        record.index = MeshIndex::try_from(16 + u16::from(place)).unwrap();
        record.mesh_key = MeshKey([place; 32]);
        let mut entry = entry(1, signing, counter);
        entry.member.record = Signed::sign(&record, &key(2)).unwrap();
        entry
    };
    let held = |e: MemberEntry| CachedMember {
        member: e.member,
        endpoint: None,
        other: Default::default(),
    };
    // Forgotten; listed with an older record; the place given to another; this node itself.
    let before = [at(10, 1, 1), at(11, 5, 2), at(12, 1, 3), at(3, 1, 4)].map(held);
    let mut list = MemberList {
        revision: 1,
        since: None,
        lasting: true,
        gone: vec![],
        documents: None,
        members: vec![at(11, 4, 2), at(13, 1, 3), at(14, 1, 5)],
        generations: [1; 4],
        time: 1,
    };
    let sorted = |of: &[u8]| {
        let mut keys: Vec<_> = of.iter().map(|n| key(*n).public()).collect();
        keys.sort();
        keys
    };
    let look = |list: &MemberList, trusted: &Trusted| {
        let known = Known::default();
        let kept = worth_keeping(list, &before, &admission(), trusted, &known);
        let keys = kept.members.iter().map(|m| {
            let opened = known.open(&m.member).unwrap();
            opened.record.signing_key
        });
        let members: Vec<_> = keys.collect();
        let (mut lacking, mut told) = (kept.lacking, kept.told);
        lacking.sort();
        told.sort();
        (members, lacking, told)
    };
    let (members, lacking, told) = look(&list, &trusted);
    assert_eq!(members, sorted(&[10, 11, 13, 14, 3]));
    assert_eq!(lacking, sorted(&[10, 11]));
    assert_eq!(told, sorted(&[13, 14]));
    // In a difference only who is said to be gone.
    list.since = Some(1);
    assert_eq!(look(&list, &trusted).1, sorted(&[11]));
    list.gone = sorted(&[10]);
    assert_eq!(look(&list, &trusted).1, sorted(&[10, 11]));
    // The policy says why.
    (list.since, list.gone) = (None, vec![]);
    let mut out = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
    out.policy.evicted = sorted(&[10]);
    let (members, lacking, _) = look(&list, &out);
    assert_eq!(
        (members, lacking),
        (sorted(&[11, 13, 14, 3]), sorted(&[11]))
    );
    let mut ruled = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
    let rule = holdfast_core::documents::Rule::new("a".parse().unwrap(), "b".parse().unwrap());
    ruled.policy.rules = vec![rule];
    assert_eq!(look(&list, &ruled).1, sorted(&[11]));
}

#[test]
fn a_replayed_record_does_not_displace_a_newer_one() {
    let roots = Roots(vec![key(7).public()]);
    let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
    let held = |e: MemberEntry| CachedMember {
        member: e.member,
        endpoint: None,
        other: Default::default(),
    };
    let (old, new) = (entry(1, 3, 1), entry(1, 3, 2));
    let seen = "192.0.2.1:1".parse().ok();
    let list = MemberList {
        revision: 1,
        since: None,
        lasting: true,
        gone: vec![],
        documents: None,
        members: vec![MemberEntry {
            endpoint: seen,
            ..old
        }],
        generations: [1; 4],
        time: 1,
    };
    // One that no grant vouches for any more, and one that the list has no more, stay out.
    let before = [
        held(new.clone()),
        held(entry(8, 3, 9)),
        held(entry(1, 5, 1)),
    ];
    let kept = worth_keeping(&list, &before, &admission(), &trusted, &Known::default());
    assert_eq!(kept.members.len(), 1);
    assert_eq!(kept.members[0].member, new.member);
    assert_eq!(kept.members[0].endpoint, seen);
}
