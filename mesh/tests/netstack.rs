//! Two members without root exchange TCP data over loopback UDP.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Member, PATIENCE, pair, soon, v4, v6};
use holdfast_mesh::{MeshError, MeshKey};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Echoes until the other end closes, then closes.
async fn echo(member: &Member, port: u16) {
    let mut listener = member.stack.listen(port).unwrap();
    tokio::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(&mut stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
}

/// Sends `bytes` bytes and checks that they come back.
async fn round_trip(from: &Member, to: SocketAddr, bytes: usize) {
    let stream = soon("connecting", from.stack.connect(to)).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..bytes).map(|n| (n / 7 + n) as u8).collect();
    let copy = sent.clone();
    let sending = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    soon("the echo", read.read_to_end(&mut back)).await.unwrap();
    sending.await.unwrap();
    assert!(
        back == sent,
        "{} of {} bytes came back, or others",
        back.len(),
        sent.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_data_goes_both_ways_over_both_families() {
    let (a, b) = pair().await;
    echo(&b, 7).await;
    round_trip(&a, (v4(2), 7).into(), 3_000_000).await;
    round_trip(&a, (v6(2), 7).into(), 300_000).await;
    // b never knew where a is: it learned it.
    let status = b.mesh.status();
    assert_eq!(
        status[0].way,
        Some(holdfast_mesh::Way::Direct(a.endpoint()))
    );
    assert!(status[0].last_handshake.unwrap() < PATIENCE);
    assert!(
        status[0].rx_bytes > 3_300_000 && status[0].tx_bytes > 3_300_000,
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_at_once() {
    let (a, b) = pair().await;
    echo(&b, 7).await;
    let (a, mut trips) = (std::sync::Arc::new(a), tokio::task::JoinSet::new());
    for n in 0..20 {
        let a = a.clone();
        trips.spawn(async move { round_trip(&a, (v4(2), 7).into(), 1000 * n + 1).await });
    }
    while let Some(trip) = trips.join_next().await {
        trip.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_before_the_session_are_kept_and_delivered() {
    let (a, b) = (Member::start(1), Member::start(2));
    echo(&b, 7).await;
    b.mesh.set_peers(&[a.as_peer(false)]).unwrap();
    // a does not know where b is: the SYN waits.
    a.mesh.set_peers(&[b.as_peer(false)]).unwrap();
    let trip = tokio::spawn({
        let stack = a.stack.clone();
        async move { stack.connect((v4(2), 7).into()).await.map(drop) }
    });
    soon("a packet waits", async {
        while a.mesh.packets_waiting() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    a.mesh.set_peers(&[b.as_peer(true)]).unwrap();
    soon("the connection opens", trip).await.unwrap().unwrap();
    assert_eq!(a.mesh.packets_waiting(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_refuses_and_an_unknown_peer_is_named() {
    let (a, b) = pair().await;
    let refused = soon("refusal", a.stack.connect((v4(2), 9).into())).await;
    assert_eq!(
        refused.err().unwrap().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let stranger = MeshKey([9; 32]);
    let error = a.mesh.wait_handshake(stranger, PATIENCE).await.unwrap_err();
    assert!(
        matches!(error, MeshError::UnknownPeer(key) if key == stranger),
        "{error}"
    );
    b.mesh.shutdown().await;
    assert!(matches!(*b.mesh.stopped().await, MeshError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_member_is_back_at_once() {
    let (a, b) = pair().await;
    echo(&b, 7).await;
    round_trip(&a, (v4(2), 7).into(), 1000).await;
    let (key, port) = (b.key.clone(), b.mesh.port());
    b.mesh.shutdown().await;
    drop(b);
    let started = std::time::Instant::now();
    let again = Member::start_with(2, key, port);
    echo(&again, 7).await;
    again.mesh.set_peers(&[a.as_peer(true)]).unwrap();
    again.handshake(a.mesh.public_key()).await;
    round_trip(&a, (v4(2), 7).into(), 1000).await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_from_an_address_not_its_own_is_dropped() {
    let (a, b) = (Member::start(1), Member::start(2));
    // b thinks that a owns another address.
    let mut wrong = a.as_peer(false);
    wrong.allowed_ips = vec!["100.64.0.77/32".parse().unwrap()];
    b.mesh.set_peers(&[wrong]).unwrap();
    a.mesh.set_peers(&[b.as_peer(true)]).unwrap();
    a.handshake(b.mesh.public_key()).await;
    echo(&b, 7).await;
    let refused =
        tokio::time::timeout(Duration::from_secs(2), a.stack.connect((v4(2), 7).into())).await;
    assert!(refused.is_err(), "the connection must not open");
}

/// Both were started anew, no lighthouse is there, and what one told last of the other leads nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_find_each_other_where_they_last_answered() {
    let (a, b) = (Member::start(1), Member::start(2));
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut stale = b.as_peer(false);
    stale.endpoint = Some(gone.local_addr().unwrap());
    a.mesh.set_peers(&[stale]).unwrap();
    b.mesh.set_peers(&[a.as_peer(false)]).unwrap();
    a.mesh.suggest(b.mesh.public_key(), b.endpoint());
    echo(&b, 7).await;
    round_trip(&a, (v4(2), 7).into(), 100_000).await;
    let way = a.mesh.status()[0].way;
    assert_eq!(way, Some(holdfast_mesh::Way::Direct(b.endpoint())));
}
