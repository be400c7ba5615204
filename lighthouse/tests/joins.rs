//! Who gets in: grants and their uses, names and indexes, documents, evictions.

mod common;

use common::testing::*;
use common::{Lab, current, kind};
use holdfast_core::api::{ApiErrorKind as Kind, OfferRequest};
use holdfast_core::documents::{DocumentSet, RevokedGrant};
use holdfast_core::grant::{Grant, verify};
use holdfast_core::signed::Signed;
use holdfast_lighthouse::store::{Embedded, Store as _};
use holdfast_lighthouse::unix_now;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_and_repeats_and_others_see_it() {
    let mut lab = Lab::new().await;
    let g = current("g1", 50, 2);
    let unknown = lab.join(1, "n1", &g, 50).await;
    assert_eq!(kind(unknown), Kind::GrantUnknown);
    lab.hand_over(&g).await.unwrap();
    lab.hand_over(&g).await.unwrap();
    let one = lab.join(1, "n1", &g, 50).await.unwrap();
    assert_eq!(one.index, index(16));
    // As after a power cut before the answer was stored.
    assert_eq!(lab.join(1, "n1", &g, 50).await.unwrap(), one);

    let waiting = tokio::spawn({
        let client = lab.client(Some(1));
        let revision = client.members(0, Duration::ZERO).await.unwrap().revision;
        async move {
            client
                .members(revision, Duration::from_secs(30))
                .await
                .unwrap()
        }
    });
    lab.join(2, "n2", &g, 50).await.unwrap();
    let seen = waiting.await.unwrap();
    assert_eq!(seen.members.len(), 2);
    assert_eq!(kind(lab.join(3, "n3", &g, 50).await), Kind::GrantUsedUp);

    // Nothing of it is lost by a restart, and revisions never go back.
    lab.stop().await;
    lab.start().await;
    let after = lab
        .client(Some(2))
        .members(0, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(after.members.len(), 2);
    assert!(after.revision >= seen.revision);
    assert_eq!(kind(lab.join(3, "n3", &g, 50).await), Kind::GrantUsedUp);
    lab.join(1, "n1", &g, 50).await.unwrap();
    let grants = lab.operator().grants().await.unwrap();
    assert_eq!(grants[0].used_by, [Lab::public(1), Lab::public(2)]);
    let nodes = lab.operator().nodes().await.unwrap();
    assert_eq!(
        nodes
            .iter()
            .map(|n| n.name.as_str())
            .collect::<std::collections::BTreeSet<_>>(),
        ["n1", "n2"].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_do_not_fit_are_refused() {
    let lab = Lab::new().await;
    let g = current("g1", 50, 3);
    lab.hand_over(&g).await.unwrap();
    lab.join(1, "n1", &g, 50).await.unwrap();
    let two = lab.client(Some(2));
    let join =
        async |record, grant: &Grant, token| kind(two.join(member(&record, grant, token)).await);
    // Another node's key, signed by a valid token: the connection proves who it is.
    assert_eq!(join(record(3, "n3", 17, &g), &g, 50).await, Kind::Denied);
    assert_eq!(join(record(2, "n1", 17, &g), &g, 50).await, Kind::Taken);
    assert_eq!(join(record(2, "n2", 16, &g), &g, 50).await, Kind::Taken);
    assert_eq!(
        join(record(2, "n2", 19, &g), &g, 50).await,
        Kind::RecordRefused
    );
    assert_eq!(
        join(record(2, "n2", 17, &g), &g, 51).await,
        Kind::RecordRefused
    );
    let mut stolen = record(2, "n2", 17, &g);
    stolen.mesh_key = record(1, "n1", 16, &g).mesh_key;
    assert_eq!(join(stolen, &g, 50).await, Kind::Taken);
    // A wider grant than the operator signed, by a token holder.
    let wider = Grant {
        last: index(99),
        ..g.clone()
    };
    let mut forged = member(&record(2, "n2", 99, &wider), &wider, 50);
    forged.grant = Signed::sign(&wider, &key(50)).unwrap();
    assert_eq!(kind(two.join(forged).await), Kind::RecordRefused);
    // Two grants of one id, both signed by the operator.
    let mut other = member(&record(2, "n2", 17, &g), &wider, 50);
    other.grant = granted(&wider);
    assert_eq!(kind(two.join(other).await), Kind::RecordRefused);
    // Refusals took no use, name or index.
    assert_eq!(
        lab.operator().grants().await.unwrap()[0].used_by,
        [Lab::public(1)]
    );
    lab.join(2, "n2", &g, 50).await.unwrap();
    // An older record of the same node.
    let mut newer = record(2, "n2", 17, &g);
    newer.counter = 9;
    two.join(member(&newer, &g, 50)).await.unwrap();
    assert_eq!(kind(lab.join(2, "n2", &g, 50).await), Kind::RecordRefused);
    // The same node under another name: the old one becomes free.
    newer.name = "n5".parse().unwrap();
    two.join(member(&newer, &g, 50)).await.unwrap();
    lab.join(3, "n2", &g, 50).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_revoked_grants_take_nobody_new() {
    let lab = Lab::new().await;
    let expired = Grant {
        not_after: unix_now() - 10,
        ..current("old", 51, 3)
    };
    lab.hand_over(&expired).await.unwrap();
    assert_eq!(
        kind(lab.join(4, "n4", &expired, 51).await),
        Kind::GrantExpired
    );
    let late = lab
        .client(Some(4))
        .join(member(&record(4, "n4", 16, &expired), &expired, 51))
        .await;
    assert_eq!(kind(late), Kind::GrantExpired);

    let g = current("g1", 50, 3);
    lab.hand_over(&g).await.unwrap();
    lab.join(1, "n1", &g, 50).await.unwrap();
    let mut p = policy(2);
    p.revoked = vec![RevokedGrant {
        id: g.id.clone(),
        except: vec![Lab::public(1)],
    }];
    lab.operator()
        .put_documents(&lab.documents(&p))
        .await
        .unwrap();
    assert_eq!(kind(lab.join(2, "n2", &g, 50).await), Kind::GrantRevoked);
    lab.join(1, "n1", &g, 50).await.unwrap();
    assert!(
        lab.operator()
            .grants()
            .await
            .unwrap()
            .iter()
            .any(|s| s.revoked)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_node_is_out_at_once_and_its_place_free_once_forgotten() {
    let lab = Lab::new().await;
    let g = current("g1", 50, 3);
    lab.hand_over(&g).await.unwrap();
    lab.join(1, "n1", &g, 50).await.unwrap();
    let node = lab.client(Some(1));
    let mut standing = node.standing().await.unwrap();
    let name = "n1".parse().unwrap();
    assert_eq!(kind(lab.operator().forget(&name).await), Kind::Denied);
    let mut p = policy(2);
    p.evicted = vec![Lab::public(1)];
    lab.operator()
        .put_documents(&lab.documents(&p))
        .await
        .unwrap();
    assert!(standing.next().await.is_err());
    assert_eq!(kind(node.members(0, Duration::ZERO).await), Kind::Evicted);
    assert_eq!(kind(lab.join(1, "n1", &g, 50).await), Kind::Evicted);
    assert_eq!(kind(lab.operator().control(&name).await), Kind::Evicted);
    assert_eq!(kind(lab.join(2, "n1", &g, 50).await), Kind::Taken);
    lab.operator().forget(&name).await.unwrap();
    lab.join(2, "n1", &g, 50).await.unwrap();
    assert_eq!(lab.join(3, "n3", &g, 50).await.unwrap().index, index(16));
    assert_eq!(
        kind(lab.operator().forget(&"n9".parse().unwrap()).await),
        Kind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_may_do_what_their_key_may() {
    let lab = Lab::new().await;
    let g = current("g1", 50, 3);
    let (nobody, stranger, looker) = (
        lab.client(None),
        lab.client(Some(9)),
        lab.client(Some(LOOKER)),
    );
    nobody.health().await.unwrap();
    assert_eq!(kind(nobody.documents().await), Kind::Denied);
    stranger.documents().await.unwrap();
    assert_eq!(kind(stranger.nodes().await), Kind::Denied);
    assert_eq!(
        kind(stranger.members(0, Duration::ZERO).await),
        Kind::Denied
    );
    assert_eq!(
        kind(stranger.put_grant(&g.id, &granted(&g)).await),
        Kind::Denied
    );
    looker.nodes().await.unwrap();
    assert_eq!(
        kind(looker.put_grant(&g.id, &granted(&g)).await),
        Kind::Denied
    );
    assert_eq!(
        kind(looker.put_documents(&lab.documents(&policy(2))).await),
        Kind::Denied
    );
    // A grant that a mere looker signed.
    let signed = Signed::sign(&g, &key(LOOKER)).unwrap();
    assert_eq!(
        kind(lab.operator().put_grant(&g.id, &signed).await),
        Kind::Denied
    );
    // An offer for somebody else's key.
    let request = OfferRequest {
        grant: g.id.clone(),
        signing_key: Lab::public(8),
    };
    assert_eq!(kind(stranger.offer(&request).await), Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_need_a_root_and_never_go_back() {
    let mut lab = Lab::new().await;
    let operator = lab.operator();
    let mut forged = lab.documents(&policy(5));
    forged.policy = Signed::sign(&policy(5), &key(OPERATOR)).unwrap();
    assert_eq!(kind(operator.put_documents(&forged).await), Kind::Denied);
    operator
        .put_documents(&lab.documents(&policy(3)))
        .await
        .unwrap();
    assert_eq!(
        kind(operator.put_documents(&lab.documents(&policy(2))).await),
        Kind::Older
    );
    lab.stop().await;
    lab.start().await;
    assert_eq!(
        kind(
            lab.operator()
                .put_documents(&lab.documents(&policy(2)))
                .await
        ),
        Kind::Older
    );
    assert_eq!(
        lab.client(Some(9)).documents().await.unwrap(),
        lab.documents(&policy(3))
    );
    // Newer ones put beside a stopped lighthouse are taken over.
    lab.stop().await;
    let dir = holdfast_lighthouse::LighthouseDir::open(&lab.dir()).unwrap();
    dir.put_documents(&lab.documents(&policy(4))).unwrap();
    lab.start().await;
    assert_eq!(
        lab.client(Some(9)).documents().await.unwrap(),
        lab.documents(&policy(4))
    );
}

/// What somebody with the store's file can do: hand out lies. Nodes check, and find them out.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_tampered_with_convinces_nobody() {
    let mut lab = Lab::new().await;
    let g = current("g1", 50, 3);
    lab.hand_over(&g).await.unwrap();
    lab.join(1, "n1", &g, 50).await.unwrap();
    lab.stop().await;
    let thief = Grant {
        token: Lab::public(66),
        ..current("g1", 66, 9)
    };
    let mut forged = member(&record(66, "spy", 17, &thief), &thief, 66);
    forged.grant = Signed::sign(&thief, &key(66)).unwrap();
    let row = serde_json::json!({ "member": forged, "joined": 0 });
    let store = Embedded::open(&lab.dir().join("store.redb")).await.unwrap();
    let place = holdfast_lighthouse::rows::member(&Lab::public(66));
    store
        .cas(&place, None, Some(serde_json::to_vec(&row).unwrap()))
        .await
        .unwrap();
    store
        .cas("members/nonsense", None, Some(b"{".to_vec()))
        .await
        .unwrap();
    drop(store);
    lab.start().await;
    // It is handed out, and every reader refuses it; the lighthouse does not let it in either.
    let node = lab.client(Some(1));
    let list = node.members(0, Duration::ZERO).await.unwrap();
    let documents: DocumentSet = node.documents().await.unwrap();
    let operators = documents
        .operators
        .open(|k| *k == Lab::public(ROOT))
        .unwrap();
    let policy = documents.policy.open(|k| *k == Lab::public(ROOT)).unwrap();
    let good = list
        .members
        .iter()
        .filter(|m| verify(&m.member, CLUSTER, &operators, &policy).is_ok());
    assert_eq!((list.members.len(), good.count()), (2, 1));
    let spy = lab.client(Some(66));
    assert_eq!(
        kind(spy.members(0, Duration::ZERO).await),
        Kind::RecordRefused
    );
    assert_eq!(kind(spy.standing().await), Kind::RecordRefused);
    assert_eq!(
        kind(lab.operator().control(&"spy".parse().unwrap()).await),
        Kind::RecordRefused
    );
    let registry = lab.running().registry();
    let peers = registry.peers(&Lab::public(ROOT), &cluster().plan(), &[]);
    assert_eq!(peers.len(), 1);
}
