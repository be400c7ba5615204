//! A lighthouse put back from an old backup: its members hand on what it lacks of others.

mod common;

use common::testing::*;
use common::{Lab, current, kind};
use holdfast_core::api::{ApiErrorKind as Kind, REFILL_MOST, Refill, Refilled};
use holdfast_core::documents::{Lighthouse, Policy};
use holdfast_core::grant::{Grant, Member, MemberRecord};
use holdfast_core::keys::MeshKey;
use holdfast_core::signed::Signed;
use std::sync::LazyLock;
use std::time::Duration;

const A: u8 = 1;
const B: u8 = 2;
const C: u8 = 3;

/// Of three uses, as for a shelf of machines: its token is not one node's alone.
static SHELF: LazyLock<Grant> = LazyLock::new(|| Grant {
    last: index(19),
    ..current("g1", 50, 3)
});

/// Node `n`'s record as its agent signs it.
fn owned(n: u8, name: &str, at: u16, counter: u64) -> MemberRecord {
    let record = MemberRecord {
        counter,
        ..record(n, name, at, &SHELF)
    };
    record.owned(&key(n))
}

/// By the grant's token.
fn signed(record: &MemberRecord, grant: &Grant) -> Member {
    Member {
        record: Signed::sign(record, &key(50)).unwrap(),
        grant: granted(grant),
    }
}

fn members(members: Vec<Member>) -> Refill {
    Refill {
        documents: None,
        members,
    }
}

/// Who is a member, with the counters, as B is told.
async fn known(lab: &Lab) -> Vec<(String, u64)> {
    let list = lab
        .client(Some(B))
        .members(0, Duration::ZERO)
        .await
        .unwrap();
    let mut all: Vec<_> = list
        .members
        .iter()
        .map(|m| m.member.record.open_self().unwrap().0)
        .map(|r| (r.name.to_string(), r.counter))
        .collect();
    all.sort();
    all
}

/// A lighthouse that was put back as it was before A joined, B having joined earlier; and A's
/// member, made with the grant that only then was handed over.
async fn put_back(lab: &mut Lab) -> Member {
    let first = Grant {
        first: index(20),
        last: index(20),
        ..current("g0", 49, 1)
    };
    lab.hand_over(&first).await.unwrap();
    lab.join(B, "b", &first, 49).await.unwrap();
    lab.stop().await;
    let (store, backup) = (lab.dir().join("store.redb"), lab.tmp.path().join("backup"));
    std::fs::copy(&store, &backup).unwrap();
    lab.start().await;
    lab.hand_over(&SHELF).await.unwrap();
    let a = signed(&owned(A, "a", 16, 7), &SHELF);
    lab.client(Some(A)).join(a.clone()).await.unwrap();
    assert_eq!(known(lab).await, [("a".into(), 7), ("b".into(), 1)]);
    lab.stop().await;
    std::fs::copy(&backup, &store).unwrap();
    lab.start().await;
    assert_eq!(known(lab).await, [("b".into(), 1)]);
    a
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_off_is_known_again_by_another() {
    let mut lab = Lab::new().await;
    let a = put_back(&mut lab).await;
    let b = lab.client(Some(B));
    // A, which is off, could not even tell who it is: the lighthouse does not know the grant.
    let denied = lab.client(Some(A)).members(0, Duration::ZERO).await;
    assert_eq!(kind(denied), Kind::Denied);
    let filled = b.refill(&members(vec![a.clone()])).await.unwrap();
    assert_eq!((filled.taken, filled.refused.len()), (1, 0));
    assert_eq!(known(&lab).await, [("a".into(), 7), ("b".into(), 1)]);
    // Once is enough, and A is a member like any other.
    assert_eq!(
        b.refill(&members(vec![a.clone()])).await.unwrap(),
        Refilled::default()
    );
    lab.client(Some(A))
        .members(0, Duration::ZERO)
        .await
        .unwrap();
    lab.stop().await;
    lab.start().await;
    assert_eq!(known(&lab).await, [("a".into(), 7), ("b".into(), 1)]);
    // Its use is counted: two are left.
    let join = async |n: u8| {
        let member = signed(&owned(n, &format!("n{n}"), u16::from(n) + 14, 1), &SHELF);
        lab.client(Some(n)).join(member).await
    };
    join(3).await.unwrap();
    join(4).await.unwrap();
    assert_eq!(kind(join(5).await), Kind::GrantUsedUp);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_altered_or_old_is_refused() {
    let mut lab = Lab::new().await;
    let a = put_back(&mut lab).await;
    let b = lab.client(Some(B));
    let refused = async |what: &str, member: Member| {
        let filled = b.refill(&members(vec![member])).await.unwrap();
        assert_eq!(
            (filled.taken, filled.refused.len()),
            (0, 1),
            "{what}: {filled:?}"
        );
    };
    // Another with the same token, in A's name: with keys of its own, or in another place.
    let stolen = MemberRecord {
        mesh_key: MeshKey([99; 32]),
        ..owned(A, "a", 16, 99)
    };
    refused("another mesh key", signed(&stolen, &SHELF)).await;
    let resigned = stolen.owned(&key(C));
    refused("another's signature", signed(&resigned, &SHELF)).await;
    let moved = MemberRecord {
        index: index(17),
        ..owned(A, "a", 16, 99)
    };
    refused("another place", signed(&moved, &SHELF)).await;
    refused("no signature", signed(&record(A, "a", 16, &SHELF), &SHELF)).await;
    // Not its token, not an operator, another grant than was signed.
    let other = Member {
        record: Signed::sign(&owned(A, "a", 16, 7), &key(51)).unwrap(),
        ..a.clone()
    };
    refused("another token", other).await;
    let forged = Member {
        grant: Signed::sign(&*SHELF, &key(50)).unwrap(),
        ..a.clone()
    };
    refused("no operator", forged).await;
    let text = serde_json::to_string(&a).unwrap();
    for (n, _) in text.match_indices("\"payload\":\"") {
        // A letter in the middle of what is signed.
        let mut bytes = text.clone().into_bytes();
        let at = n + 60;
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let altered = serde_json::from_slice(&bytes).unwrap();
        refused("an altered letter", altered).await;
    }
    let over = Grant {
        not_after: NOW,
        id: "g9".parse().unwrap(),
        ..SHELF.clone()
    };
    let late = MemberRecord {
        grant: over.id.clone(),
        ..owned(A, "a", 16, 7)
    };
    refused("a grant that ended", signed(&late.owned(&key(A)), &over)).await;
    assert_eq!(known(&lab).await, [("b".into(), 1)]);

    // Newer ones take the place of older ones, and never the other way round.
    let counted = |counter| signed(&owned(A, "a", 16, counter), &SHELF);
    for (counter, taken) in [(7, 1), (6, 0), (9, 1), (7, 0), (8, 0)] {
        let filled = b.refill(&members(vec![counted(counter)])).await.unwrap();
        assert_eq!(filled.taken, taken, "{counter}: {filled:?}");
    }
    assert_eq!(known(&lab).await, [("a".into(), 9), ("b".into(), 1)]);

    // Strangers hand nothing on, nobody too much.
    let c = lab.client(Some(C));
    assert_eq!(
        kind(c.refill(&members(vec![counted(10)])).await),
        Kind::Denied
    );
    let many = members(vec![a; REFILL_MOST + 1]);
    assert_eq!(kind(b.refill(&many).await), Kind::Malformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_use_vouches_for_a_record_from_before() {
    let mut lab = Lab::new().await;
    put_back(&mut lab).await;
    let alone = Grant {
        first: index(18),
        last: index(18),
        ..current("g5", 50, 1)
    };
    let at = |counter| {
        let record = MemberRecord {
            counter,
            ..record(C, "c", 18, &alone)
        };
        signed(&record, &alone)
    };
    let b = lab.client(Some(B));
    for (counter, taken) in [(1, 1), (2, 0)] {
        let filled = b.refill(&members(vec![at(counter)])).await.unwrap();
        assert_eq!(filled.taken, taken, "{filled:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_evicted_stays_out() {
    let mut lab = Lab::new().await;
    let a = put_back(&mut lab).await;
    let b = lab.client(Some(B));
    assert_eq!(b.refill(&members(vec![a.clone()])).await.unwrap().taken, 1);
    // The eviction was forgotten as well; B holds it.
    let out = Policy {
        evicted: vec![key(A).public()],
        ..policy(2)
    };
    let documents = |set| Refill {
        documents: Some(Box::new(set)),
        members: vec![],
    };
    let mut forged = lab.documents(&out);
    forged.policy = Signed::sign(&out, &key(OPERATOR)).unwrap();
    let filled = b.refill(&documents(forged)).await.unwrap();
    assert_eq!(filled.refused.len(), 1, "{filled:?}");
    lab.client(Some(A))
        .members(0, Duration::ZERO)
        .await
        .unwrap();
    let brought = Refill {
        documents: Some(Box::new(lab.documents(&out))),
        members: vec![signed(&owned(A, "a", 16, 8), &SHELF)],
    };
    let filled = b.refill(&brought).await.unwrap();
    assert_eq!((filled.taken, filled.refused.len()), (0, 1), "{filled:?}");
    let again = lab.client(Some(A)).members(0, Duration::ZERO).await;
    assert_eq!(kind(again), Kind::Evicted);
    assert_eq!(kind(lab.client(Some(A)).join(a).await), Kind::Evicted);
    // An older policy does not bring it back.
    let filled = b
        .refill(&documents(lab.documents(&policy(1))))
        .await
        .unwrap();
    assert_eq!(filled, Refilled::default());
    let again = lab.client(Some(A)).members(0, Duration::ZERO).await;
    assert_eq!(kind(again), Kind::Evicted);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_another_lighthouse_let_in_is_known_here_after_its_grants_end_too() {
    let mut lab = Lab::new().await;
    put_back(&mut lab).await;
    let b = lab.client(Some(B));
    let over = Grant {
        not_after: NOW,
        id: "g9".parse().unwrap(),
        uses: 1,
        ..SHELF.clone()
    };
    let late = |n: u8, at: u16| {
        let record = MemberRecord {
            grant: over.id.clone(),
            ..record(n, &format!("n{n}"), at, &over)
        };
        members(vec![signed(&record.owned(&key(n)), &over)])
    };
    // Alone, nobody else can have let it in.
    let filled = b.refill(&late(A, 16)).await.unwrap();
    assert_eq!((filled.taken, filled.refused.len()), (0, 1), "{filled:?}");
    let mut set = lab.documents(&policy(1));
    let mut list = lighthouses(2, &lab.keys.identity(), 8443, 51820);
    list.lighthouses.push(Lighthouse {
        name: "two".into(),
        key: key(77).public(),
        mesh_key: MeshKey([77; 32]),
        index: index(2),
        ..list.lighthouses[0].clone()
    });
    set.lighthouses = Signed::sign(&list, &key(ROOT)).unwrap();
    lab.operator().put_documents(&set).await.unwrap();
    let filled = b.refill(&late(A, 16)).await.unwrap();
    assert_eq!((filled.taken, filled.refused.len()), (1, 0), "{filled:?}");
    // Its one use is counted: whoever used the token at the other one too is not taken.
    let filled = b.refill(&late(C, 17)).await.unwrap();
    assert_eq!((filled.taken, filled.refused.len()), (0, 1), "{filled:?}");
    assert!(filled.refused[0].contains("1 uses"), "{filled:?}");
}
