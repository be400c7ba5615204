//! Nodes whose clocks stand in 1970 and in 2050: nothing that lets a member in asks for the time,
//! but a grant's end, and that asks the lighthouse's.

mod common;

use common::testing::*;
use common::{Lab, current, kind};
use holdfast_core::api::ApiErrorKind as Kind;
use holdfast_core::documents::{Policy, accept};
use holdfast_core::grant::{Grant, Member, MemberRecord, verify};
use holdfast_core::signed::Signed;
use std::time::Duration;

/// 2050-01-01, in Unix seconds.
const LATE: u64 = 2_524_608_000;
/// What a node's clock shows, which is a record's counter when it joins.
const CLOCKS: [(u8, u64); 3] = [(1, 0), (2, 1_790_000_000), (3, LATE)];

fn at(n: u8, counter: u64, grant: &Grant) -> Member {
    let record = MemberRecord {
        counter,
        ..record(n, &format!("n{n}"), u16::from(n) + 15, grant)
    };
    let record = record.owned(&key(n));
    Member {
        record: Signed::sign(&record, &key(50)).unwrap(),
        grant: granted(grant),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_years_apart_keep_nobody_out() {
    let lab = Lab::new().await;
    let grant = current("g1", 50, 3);
    lab.hand_over(&grant).await.unwrap();
    for (n, clock) in CLOCKS {
        lab.client(Some(n))
            .join(at(n, clock, &grant))
            .await
            .unwrap();
    }
    // What each checks of the others has no time in it: documents, grants, records.
    let ended = Policy {
        evicted: vec![key(9).public()],
        ..policy(2)
    };
    lab.operator()
        .put_documents(&lab.documents(&ended))
        .await
        .unwrap();
    for (n, _) in CLOCKS {
        let client = lab.client(Some(n));
        let set = client.documents().await.unwrap();
        let operators = accept(&set.operators, &cluster().roots(), CLUSTER, None).unwrap();
        let policy = accept(&set.policy, &cluster().roots(), CLUSTER, Some(1)).unwrap();
        assert_eq!(policy, ended);
        let list = client.members(0, Duration::ZERO).await.unwrap();
        assert_eq!(list.members.len(), 3);
        for entry in list.members {
            verify(&entry.member, CLUSTER, &operators, &policy).unwrap();
        }
    }
    // The clock that was in 2050 is right now: a node counts on from its last record, or else it
    // would be refused for decades.
    let back = lab.client(Some(3)).join(at(3, 1_790_000_000, &grant)).await;
    assert_eq!(kind(back), Kind::RecordRefused);
    lab.client(Some(3))
        .join(at(3, LATE + 1, &grant))
        .await
        .unwrap();
    lab.client(Some(1))
        .join(at(1, 1_790_000_000, &grant))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_ends_by_the_lighthouses_clock_for_those_who_never_came() {
    let lab = Lab::new().await;
    let over = grant("g1", 50, 3);
    lab.hand_over(&over).await.unwrap();
    for (n, clock) in CLOCKS {
        let late = lab.client(Some(n)).join(at(n, clock, &over)).await;
        assert_eq!(kind(late), Kind::GrantExpired);
    }
    for end in [LATE, u64::MAX] {
        let endless = Grant {
            id: format!("g{}", end % 10).parse().unwrap(),
            not_after: end,
            ..over.clone()
        };
        lab.hand_over(&endless).await.unwrap();
        let n = if end == LATE { 1 } else { 2 };
        lab.client(Some(n)).join(at(n, 0, &endless)).await.unwrap();
    }
}
