//! What members are told of each other: differences, what the policy lets them know, evictions.

mod common;

use common::testing::*;
use common::{Lab, current, kind};
use holdfast_core::api::{ApiErrorKind, MemberList, OfferRequest, RelayRequest};
use holdfast_core::documents::{Policy, Rule};
use holdfast_core::grant::Grant;
use holdfast_core::keys::PublicKey;
use std::time::{Duration, Instant};

/// Longer than any test waits for news.
const WAIT: Duration = Duration::from_secs(30);

fn grouped(id: &str, token: u8, first: u16, group: &str) -> Grant {
    Grant {
        groups: vec![group.parse().unwrap()],
        first: index(first),
        last: index(first + 4),
        ..current(id, token, 5)
    }
}

fn keys(list: &MemberList) -> Vec<PublicKey> {
    let mut keys: Vec<_> = list
        .members
        .iter()
        .map(|m| m.member.record.open_self().unwrap().0.signing_key)
        .collect();
    keys.sort();
    keys
}

fn public(of: &[u8]) -> Vec<PublicKey> {
    let mut keys: Vec<_> = of.iter().map(|n| key(*n).public()).collect();
    keys.sort();
    keys
}

/// Asks for news until they say what is waited for; all of them as one.
async fn until(
    lab: &Lab,
    n: u8,
    revision: &mut u64,
    mut told: impl FnMut(&MemberList) -> bool,
) -> MemberList {
    loop {
        let list = lab.client(Some(n)).news(*revision, WAIT).await.unwrap();
        assert_eq!(list.since, Some(*revision), "a whole list, or none in time");
        assert_ne!(list.revision, *revision, "no news in time");
        *revision = list.revision;
        if told(&list) {
            return list;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_a_revision_is_told_the_difference() {
    let lab = Lab::new().await;
    let grant = current("g1", 50, 3);
    lab.hand_over(&grant).await.unwrap();
    lab.join(1, "n1", &grant, 50).await.unwrap();
    let first = lab.client(Some(1)).news(0, WAIT).await.unwrap();
    assert_eq!((first.since, keys(&first)), (None, public(&[1])));
    let mut revision = first.revision;

    // What was not published yet may come once more.
    lab.join(2, "n2", &grant, 50).await.unwrap();
    let news = until(&lab, 1, &mut revision, |l| {
        keys(l).contains(&key(2).public())
    })
    .await;
    assert!(news.documents.is_none() && news.gone.is_empty());
    // An older member gets the whole list.
    let whole = lab.client(Some(1)).members(0, WAIT).await.unwrap();
    assert_eq!((whole.since, keys(&whole)), (None, public(&[1, 2])));
    // Nothing new: an empty difference, when the time is up.
    let quiet = lab
        .client(Some(1))
        .news(revision, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!((quiet.since, quiet.members.len()), (Some(revision), 0));

    // An eviction carries its policy along, and the member goes.
    let begun = Instant::now();
    let out = Policy {
        evicted: vec![key(2).public()],
        ..policy(2)
    };
    lab.operator()
        .put_documents(&lab.documents(&out))
        .await
        .unwrap();
    let news = until(&lab, 1, &mut revision, |l| l.documents.is_some()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let documents = news.documents.unwrap();
    assert_eq!(documents.policy.open(|_| true).unwrap(), out);
    assert_eq!(news.gone, public(&[2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_only_what_changed_is_told() {
    let mut lab = Lab::new().await;
    let grant = Grant {
        last: index(200),
        ..current("g1", 50, 110)
    };
    lab.hand_over(&grant).await.unwrap();
    for n in 1..=100 {
        // Past the limit for one source.
        let record = record(n, &format!("n{n}"), u16::from(n) + 15, &grant);
        let shown = member(&record, &grant, 50);
        let joined = lab.running().registry().join(&shown, record.signing_key);
        joined.await.unwrap();
    }
    let size = |list: &MemberList| serde_json::to_vec(list).unwrap().len();
    let whole = lab.client(Some(1)).news(0, WAIT).await.unwrap();
    assert!(whole.lasting && keys(&whole).len() == 100);
    let mut revision = whole.revision;
    loop {
        // Until all of it is published.
        let list = lab
            .client(Some(1))
            .news(revision, Duration::from_secs(1))
            .await
            .unwrap();
        if list.revision == revision {
            break;
        }
        revision = list.revision;
    }
    let (store, backup) = (lab.dir().join("store.redb"), lab.tmp.path().join("backup"));
    for restart in 0..2 {
        lab.stop().await;
        std::fs::copy(&store, &backup).unwrap();
        lab.start().await;
        let list = lab
            .client(Some(1))
            .news(revision, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(
            (list.since, list.revision),
            (Some(revision), revision),
            "{restart}"
        );
        assert!(list.members.is_empty());
        println!(
            "{} bytes after a restart; the whole list: {}",
            size(&list),
            size(&whole)
        );
        assert!(size(&list) < 300 && size(&whole) > 90_000);
    }

    // A change after it is told as ever; another, in a life that begins with a backup from before,
    // gets a number of its own.
    let mut counts = vec![];
    for name in ["here", "there"] {
        let n = 101 + counts.len() as u8;
        lab.join(n, name, &grant, 50).await.unwrap();
        let mut at = revision;
        let list = until(&lab, 1, &mut at, |l| keys(l).contains(&key(n).public())).await;
        assert!(list.lasting);
        counts.push(at);
        lab.stop().await;
        std::fs::copy(&backup, &store).unwrap();
        lab.start().await;
    }
    assert_ne!(counts[0], counts[1]);
    for at in counts {
        let list = lab.client(Some(1)).news(at, WAIT).await.unwrap();
        assert_eq!((list.since, keys(&list).len()), (None, 100));
    }
    let list = lab
        .client(Some(1))
        .news(revision, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(list.since, Some(revision));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_told_of_those_only_whom_a_rule_connects_it_with() {
    let lab = Lab::new().await;
    for (n, name, first, group) in [
        (1, "p1", 16, "phones"),
        (2, "w1", 21, "web"),
        (3, "x1", 26, "other"),
    ] {
        let grant = grouped(&format!("g{n}"), 50 + n, first, group);
        lab.hand_over(&grant).await.unwrap();
        lab.join(n, name, &grant, 50 + n).await.unwrap();
    }
    let mut revisions = [0; 4];
    for n in 1..=3 {
        let list = lab.client(Some(n)).news(0, WAIT).await.unwrap();
        assert_eq!(keys(&list), public(&[1, 2, 3]));
        revisions[usize::from(n)] = list.revision;
    }
    let ruled = Policy {
        rules: vec![Rule::new("phones".parse().unwrap(), "web".parse().unwrap())],
        ..policy(2)
    };
    lab.operator()
        .put_documents(&lab.documents(&ruled))
        .await
        .unwrap();
    for (n, gone) in [(1u8, &[3][..]), (2, &[3]), (3, &[1, 2])] {
        let revision = &mut revisions[usize::from(n)];
        let news = until(&lab, n, revision, |l| l.documents.is_some()).await;
        let mut all = news.gone.clone();
        all.sort();
        // Its own record is no news to anybody.
        all.retain(|k| *k != key(n).public());
        assert_eq!(all, public(gone), "{n}");
        // Who joined just before may come once more, but nobody whom it may not know.
        assert!(!keys(&news).iter().any(|k| all.contains(k)), "{n}");
    }
    // The whole list shows the same, and a member itself: older ones look there for their groups.
    for (n, shown) in [(1u8, &[1, 2][..]), (2, &[1, 2]), (3, &[3])] {
        let list = lab.client(Some(n)).members(0, WAIT).await.unwrap();
        assert_eq!(keys(&list), public(shown), "{n}");
    }
    let operator = lab.operator().members(0, WAIT).await.unwrap();
    assert_eq!(keys(&operator), public(&[1, 2, 3]));

    // No channel to whom it may not talk to.
    let mesh = |n: u8| record(n, "x", 16, &current("g", 1, 1)).mesh_key;
    let ask = |n: u8, peer: u8| {
        let client = lab.client(Some(n));
        async move { client.relay(&RelayRequest { peer: mesh(peer) }).await }
    };
    assert_eq!(kind(ask(1, 3).await), ApiErrorKind::NotFound);
    assert_eq!(kind(ask(3, 2).await), ApiErrorKind::NotFound);
    // The other way round than the rule: answers need one too.
    let begun = Instant::now();
    while let Err(e) = ask(2, 1).await {
        assert!(begun.elapsed() < WAIT, "{e}");
        tokio::task::yield_now().await;
    }

    // Without rules everybody is told of everybody again.
    lab.operator()
        .put_documents(&lab.documents(&policy(3)))
        .await
        .unwrap();
    for (n, back) in [(1u8, &[3][..]), (3, &[1, 2])] {
        let revision = &mut revisions[usize::from(n)];
        let news = until(&lab, n, revision, |l| l.documents.is_some()).await;
        let mut shown = keys(&news);
        shown.retain(|k| *k != key(n).public());
        assert_eq!(shown, public(back), "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_identity_does_not_come_back() {
    let mut lab = Lab::new().await;
    let grant = current("g1", 50, 3);
    lab.hand_over(&grant).await.unwrap();
    lab.join(1, "n1", &grant, 50).await.unwrap();
    let out = Policy {
        evicted: vec![key(1).public()],
        ..policy(2)
    };
    lab.operator()
        .put_documents(&lab.documents(&out))
        .await
        .unwrap();
    let fresh = Grant {
        first: index(30),
        last: index(31),
        ..current("g2", 51, 1)
    };
    lab.hand_over(&fresh).await.unwrap();
    for forgotten in [false, true] {
        if forgotten {
            lab.operator().forget(&"n1".parse().unwrap()).await.unwrap();
            // Its memory is not what keeps it out.
            lab.stop().await;
            lab.start().await;
        }
        // With its record, with its grant, with a grant of today.
        let client = lab.client(Some(1));
        let old = member(&record(1, "n1", 16, &grant), &grant, 50);
        assert_eq!(kind(client.join(old).await), ApiErrorKind::Evicted);
        for (grant, at, token) in [(&grant, 17, 50), (&fresh, 30, 51)] {
            let request = OfferRequest {
                grant: grant.id.clone(),
                signing_key: key(1).public(),
            };
            assert_eq!(kind(client.offer(&request).await), ApiErrorKind::Evicted);
            let again = member(&record(1, "n9", at, grant), grant, token);
            assert_eq!(kind(client.join(again).await), ApiErrorKind::Evicted);
        }
        let listed = client.members(0, Duration::ZERO).await;
        let wanted = [ApiErrorKind::Evicted, ApiErrorKind::Denied];
        assert!(wanted.contains(&kind(listed)));
    }
    // The machine may, with a key of its own making.
    lab.join(2, "n1", &fresh, 51).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_mesh_socket_get_no_answer() {
    let lab = Lab::new().await;
    let to = ("127.0.0.1", lab.running().udp);
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for n in 0..2000u32 {
        // WireGuard's four kinds with random keys, probes, relayed datagrams of no channel, noise.
        let begin: &[u8] = match n % 7 {
            0 => &[1, 0, 0, 0],
            1 => &[2, 0, 0, 0],
            2 => &[3, 0, 0, 0],
            3 => &[4, 0, 0, 0],
            4 => b"hfp\x01",
            5 => b"hfr\x01",
            _ => b"",
        };
        let length = [148, 92, 64, 1200, 80, 1300, 33][n as usize % 7];
        let mut datagram = vec![0; length];
        let mut state = n.wrapping_mul(2_654_435_761) | 1;
        for byte in &mut datagram {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *byte = state as u8;
        }
        datagram[..begin.len()].copy_from_slice(begin);
        stranger.send_to(&datagram, to).await.unwrap();
    }
    let mut buffer = [0; 2048];
    let answer = tokio::time::timeout(Duration::from_millis(500), stranger.recv(&mut buffer)).await;
    assert!(
        answer.is_err(),
        "{:?}",
        answer.map(|n| buffer[..n.unwrap()].to_vec())
    );
    // And whoever belongs here is served as before.
    lab.client(None).health().await.unwrap();
}
