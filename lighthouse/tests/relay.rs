//! Two members that cannot reach each other directly: the lighthouse relays, until they can.

mod common;

use common::member::{Contact, Member, echo};
use common::{Lab, PATIENCE, current, kind};
use holdfast_core::api::{ApiErrorKind, RelayRequest};
use holdfast_mesh::{MeshKey, MeshSocket, Way};
use ipnet::IpNet;
use std::time::{Duration, Instant};
use tokio::time::sleep;

async fn join(lab: &Lab, n: u8, g: &holdfast_core::grant::Grant, avoid: Vec<IpNet>) -> Member {
    let socket = MeshSocket::bind_to(common::loopback()).unwrap();
    Member::join(&Contact::of(lab, g), n, socket, vec![], avoid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_moves_from_relay_to_direct_and_loses_nothing() {
    let lab = Lab::new().await;
    let g = current("g1", 50, 2);
    lab.hand_over(&g).await.unwrap();
    // Neither seeks the other on loopback: as good as a NAT.
    let nowhere: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
    let one = join(&lab, 1, &g, nowhere.clone()).await;
    let two = join(&lab, 2, &g, nowhere).await;
    let (first, second) = (one.mesh.public_key(), two.mesh.public_key());
    one.meet(two.as_peer()).await;
    two.meet(one.as_peer()).await;
    let mut listener = two.stack.listen(7000).unwrap();
    tokio::spawn(async move {
        let stream = listener.accept().await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    });
    let begun = Instant::now();
    let mut stream = one.stack.connect((two.inner, 7000).into()).await.unwrap();
    println!("relayed connection within {:?}", begun.elapsed());
    let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    echo(&mut stream, &bytes).await;
    assert!(one.way(second).is_some_and(Way::is_relayed));
    assert!(two.way(first).is_some_and(Way::is_relayed));

    // They find each other where the lighthouse saw them.
    one.mesh.set_places(vec![], vec![]);
    two.mesh.set_places(vec![], vec![]);
    one.mesh.knock();
    let begun = Instant::now();
    while one.way(second).is_none_or(Way::is_relayed) || two.way(first).is_none_or(Way::is_relayed)
    {
        assert!(begun.elapsed() < PATIENCE, "{:?}", one.way(second));
        echo(&mut stream, &bytes[..1000]).await;
        sleep(Duration::from_millis(5)).await;
    }
    println!("direct within {:?}", begun.elapsed());
    echo(&mut stream, &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_for_members_and_to_members() {
    let lab = Lab::new().await;
    let g = current("g1", 50, 1);
    lab.hand_over(&g).await.unwrap();
    let one = join(&lab, 1, &g, vec![]).await;
    let own = one.mesh.public_key();
    let ask = async |n: u8, peer| lab.client(Some(n)).relay(&RelayRequest { peer }).await;
    assert_eq!(kind(ask(9, own).await), ApiErrorKind::Denied);
    // Neither itself nor a stranger.
    assert_eq!(kind(ask(1, own).await), ApiErrorKind::NotFound);
    let stranger = MeshKey([9; 32]);
    assert_eq!(kind(ask(1, stranger).await), ApiErrorKind::NotFound);
}
