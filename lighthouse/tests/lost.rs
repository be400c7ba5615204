//! A lighthouse destroyed with its disk, and another in its place: who takes it for one, and who
//! comes back.

mod common;

use common::testing::*;
use common::{Lab, current, kind};
use holdfast_client::{ClientError, LighthouseClient, SuccessorError, Trust, succeed, successor};
use holdfast_core::api::{ApiErrorKind as Kind, OfferRequest, Refill};
use holdfast_core::documents::{DocumentSet, Roots};
use holdfast_core::signed::Signed;
use holdfast_lighthouse::{Config, Keys, Lighthouse, LighthouseDir, unix_now};
use holdfast_tls::Identity;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Documents in which root `root` names `keys` as the lighthouse, in generation `generation`.
fn naming(keys: &Keys, generation: u64, root: u8) -> DocumentSet {
    let old = set(&policy(1), &keys.identity());
    let list = lighthouses(generation, &keys.identity(), 8443, 51820);
    DocumentSet {
        lighthouses: Signed::sign(&list, &key(root)).unwrap(),
        ..old
    }
}

/// Starts a lighthouse at `https` with a folder of its own.
async fn place(
    at: &Path,
    https: SocketAddr,
    keys: &Keys,
    set: &DocumentSet,
    refill: u64,
) -> Lighthouse {
    let dir = LighthouseDir::create(at, &cluster(), keys, set).unwrap();
    dir.put_refill_until(refill).unwrap();
    let config = Config {
        https: vec![https],
        udp: Some(common::loopback()),
        ..Config::new(at)
    };
    Lighthouse::start(config).await.unwrap()
}

fn client(n: u8, address: SocketAddr, pinned: &Keys) -> LighthouseClient {
    let identity = Identity::from_key(&key(n)).unwrap();
    LighthouseClient::new(
        vec![address.to_string()],
        pinned.tls.public(),
        Some(&identity),
    )
    .unwrap()
}

async fn poll(client: &LighthouseClient) -> Result<usize, ClientError> {
    let list = client.members(0, Duration::ZERO).await?;
    Ok(list.members.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_members_find_the_next_one_and_fill_it_again() {
    let mut lab = Lab::new().await;
    let address = lab.running().https[0];
    let old = lab.keys.clone();
    let g = current("g1", 50, 1);
    lab.hand_over(&g).await.unwrap();
    let record = lab.join(1, "n1", &g, 50).await.unwrap();
    lab.stop().await;
    std::fs::remove_dir_all(lab.dir()).unwrap();

    let tmp = tempfile::tempdir().unwrap();
    let keys = Keys::generate().unwrap();
    let trust = Trust {
        roots: cluster().roots(),
        cluster: CLUSTER,
        generation: 1,
    };
    let until = unix_now() + 3600;
    let new = place(
        &tmp.path().join("a"),
        address,
        &keys,
        &naming(&keys, 2, ROOT),
        until,
    )
    .await;
    let error = poll(&client(1, address, &old)).await.unwrap_err();
    assert!(matches!(error, ClientError::WrongKey { .. }), "{error}");
    let found = successor(&error, &trust).await.unwrap().unwrap();
    assert_eq!(found, naming(&keys, 2, ROOT));
    // Asked again with this document in hand, it is nothing new.
    let held = Trust {
        generation: 2,
        ..trust.clone()
    };
    let again = successor(&error, &held).await.unwrap_err();
    assert!(matches!(again, SuccessorError::NotNewer { .. }), "{again}");

    let back = client(1, address, &keys);
    assert_eq!(kind(poll(&back).await), Kind::Denied);
    // A key that has a member's record, but not its key.
    let shown = member(&record, &g, 50);
    assert_eq!(
        kind(client(2, address, &keys).join(shown.clone()).await),
        Kind::Denied
    );
    back.join(shown.clone()).await.unwrap();
    back.join(shown).await.unwrap();
    assert_eq!(poll(&back).await.unwrap(), 1);
    // The use is counted: the one use of the grant is taken by who came back.
    let second = member(&record_of(3, &g), &g, 50);
    assert_eq!(
        kind(client(3, address, &keys).join(second).await),
        Kind::GrantUsedUp
    );
    drop(new);
}

fn record_of(n: u8, g: &holdfast_core::grant::Grant) -> holdfast_core::grant::MemberRecord {
    record(n, "n3", 17, g)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_not_joined_takes_it_too() {
    let tmp = tempfile::tempdir().unwrap();
    let (pinned, keys) = (Keys::generate().unwrap(), Keys::generate().unwrap());
    let set = naming(&keys, 2, ROOT);
    let at = tmp.path().join("a");
    let new = place(&at, common::loopback(), &keys, &set, 0).await;
    let address = new.https[0];
    let g = current("g1", 50, 1);
    let operator = client(OPERATOR, address, &keys);
    operator.put_grant(&g.id, &granted(&g)).await.unwrap();

    // All that a seed knows: roots, cluster, and the pin of a lighthouse that is gone.
    let seed = Trust {
        roots: cluster().roots(),
        cluster: CLUSTER,
        generation: 0,
    };
    let own = Identity::from_key(&key(1)).unwrap();
    let request = OfferRequest {
        grant: g.id.clone(),
        signing_key: key(1).public(),
    };
    let error = client(1, address, &pinned)
        .offer(&request)
        .await
        .unwrap_err();
    let next = succeed(&error, &seed, &own).await.unwrap().unwrap();
    let offer = next.offer(&request).await.unwrap();
    let record = record(1, "n1", offer.index.get(), &g);
    next.join(member(&record, &g, 50)).await.unwrap();

    // Of another cluster's root it takes nothing, whatever the generation.
    let strange = Trust {
        roots: Roots(vec![key(OPERATOR).public()]),
        ..seed.clone()
    };
    let refused = succeed(&error, &strange, &own).await.unwrap_err();
    assert!(
        matches!(refused, SuccessorError::Document { .. }),
        "{refused}"
    );
    // Nor a true document that names somebody else.
    let other = Keys::generate().unwrap();
    let named = seed.names("x:1", other.tls.public(), &set).unwrap_err();
    assert!(matches!(named, SuccessorError::NotNamed { .. }), "{named}");
    let nobody = ClientError::NoAddress;
    assert!(succeed(&nobody, &seed, &own).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_taken_for_one() {
    let tmp = tempfile::tempdir().unwrap();
    let (pinned, named, own) = (
        Keys::generate().unwrap(),
        Keys::generate().unwrap(),
        Keys::generate().unwrap(),
    );
    let trust = Trust {
        roots: cluster().roots(),
        cluster: CLUSTER,
        generation: 1,
    };
    let shows = |key: &Keys, set: &DocumentSet| trust.names("x:1", key.tls.public(), set);
    assert!(shows(&named, &naming(&named, 2, ROOT)).is_ok());
    // Another's true document, one that no root signed, and one of a generation that is held.
    let other = shows(&own, &naming(&named, 2, ROOT)).unwrap_err();
    assert!(matches!(other, SuccessorError::NotNamed { .. }), "{other}");
    let forged = shows(&own, &naming(&own, 2, OPERATOR)).unwrap_err();
    assert!(
        matches!(forged, SuccessorError::Document { .. }),
        "{forged}"
    );
    let same = shows(&own, &naming(&own, 1, ROOT)).unwrap_err();
    assert!(matches!(same, SuccessorError::NotNewer { .. }), "{same}");
    let mut abroad = trust.clone();
    abroad.cluster.0[0] ^= 1;
    assert!(
        abroad
            .names("x:1", named.tls.public(), &naming(&named, 2, ROOT))
            .is_err()
    );

    // Over the network: one that starts by documents naming it, signed by the wrong root, cannot
    // even start; one with an old generation is asked, and not taken.
    let set = naming(&own, 1, ROOT);
    let impostor = place(&tmp.path().join("b"), common::loopback(), &own, &set, 0).await;
    let error = poll(&client(1, impostor.https[0], &pinned))
        .await
        .unwrap_err();
    let refused = successor(&error, &trust).await.unwrap_err();
    assert!(
        matches!(refused, SuccessorError::NotNewer { .. }),
        "{refused}"
    );
    // Errors of another kind ask nobody.
    let nobody = ClientError::NoAddress;
    assert!(successor(&nobody, &trust).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_believed_for_a_time_only() {
    let tmp = tempfile::tempdir().unwrap();
    let keys = Keys::generate().unwrap();
    let set = naming(&keys, 2, ROOT);
    // Its time is over long since.
    let g = grant("g1", 50, 1);
    let shown = || member(&record(1, "n1", 16, &g), &g, 50);
    let late = place(&tmp.path().join("a"), common::loopback(), &keys, &set, 0).await;
    let at = client(1, late.https[0], &keys);
    assert_eq!(kind(at.join(shown()).await), Kind::GrantUnknown);
    late.registry().refill(unix_now() + 3600);
    // No operator signed this one.
    let mut forged = shown();
    forged.grant = Signed::sign(&g, &key(50)).unwrap();
    assert_eq!(kind(at.join(forged).await), Kind::RecordRefused);
    at.join(shown()).await.unwrap();
    late.registry().refill(0);
    at.join(shown()).await.unwrap();
    let g2 = grant("g2", 51, 1);
    let other = member(&record(2, "n2", 17, &g2), &g2, 51);
    let unknown = client(2, late.https[0], &keys).join(other).await;
    assert_eq!(kind(unknown), Kind::GrantUnknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_is_brought_forward_by_its_members() {
    let lab = Lab::new().await;
    let g = current("g1", 50, 2);
    lab.hand_over(&g).await.unwrap();
    lab.join(1, "n1", &g, 50).await.unwrap();
    lab.join(2, "n2", &g, 50).await.unwrap();
    // What the root signed after the backup, which members hold: n2 is out. Of operators this one
    // holds an older document than the lighthouse.
    let out = holdfast_core::documents::Policy {
        evicted: vec![key(2).public()],
        ..policy(9)
    };
    let ahead = DocumentSet {
        operators: Signed::sign(&operators(7), &key(ROOT)).unwrap(),
        ..lab.documents(&policy(1))
    };
    lab.operator().put_documents(&ahead).await.unwrap();
    let held = lab.documents(&out);
    let forged = DocumentSet {
        policy: Signed::sign(&policy(99), &key(1)).unwrap(),
        ..held.clone()
    };
    let member = lab.client(Some(1));
    let refill = |set: &DocumentSet| Refill {
        documents: Some(Box::new(set.clone())),
        ..Refill::default()
    };
    let filled = member.refill(&refill(&forged)).await.unwrap();
    assert_eq!(filled.refused.len(), 1, "{filled:?}");
    let stranger = lab.client(Some(3));
    assert_eq!(kind(stranger.refill(&refill(&held)).await), Kind::Denied);
    let looker = lab.client(Some(LOOKER));
    assert_eq!(kind(looker.refill(&refill(&held)).await), Kind::Denied);
    assert_eq!(kind(member.put_documents(&held).await), Kind::Denied);
    assert_eq!(lab.running().registry().held().generations(), [7, 1, 1, 1]);
    member.refill(&refill(&held)).await.unwrap();
    assert_eq!(lab.running().registry().held().generations(), [7, 1, 9, 1]);
    assert_eq!(kind(poll(&lab.client(Some(2))).await), Kind::Evicted);
    // Never back.
    let older = lab.documents(&policy(8));
    member.refill(&refill(&older)).await.unwrap();
    assert_eq!(lab.running().registry().held().generations(), [7, 1, 9, 1]);
}
