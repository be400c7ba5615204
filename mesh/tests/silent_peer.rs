//! A peer that is silent for an hour comes back by itself. The hour passes in seconds: this
//! program's clock is its own.
#![allow(missing_docs, reason = "a test")]

mod clock;
mod common;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::PublicKey;
use common::{Member, pair};
use std::time::{Duration, Instant};

/// Lets `time` pass in steps of a second; each step lets threads and tasks run.
async fn pass(time: Duration) {
    for _ in 0..time.as_secs() {
        clock::advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
        while clock::overdue() {
            std::thread::yield_now();
        }
        tokio::task::yield_now().await;
    }
}

/// What the engine guards against, seen in boringtun itself.
#[test]
fn boringtun_alone_falls_silent() {
    let _clock = clock::own();
    let secret = |n: u8| boringtun::x25519::StaticSecret::from([n; 32]);
    let other = PublicKey::from(&secret(2));
    let mut tunn = Tunn::new(secret(1), other, None, Some(25), 1, None);
    let mut buffer = [0; 256];
    let mut last_sent = 0;
    let begin = Instant::now();
    for second in 0..3600 {
        if matches!(
            tunn.update_timers(&mut buffer),
            TunnResult::WriteToNetwork(_)
        ) {
            last_sent = second;
        }
        clock::advance(Duration::from_secs(1));
    }
    assert!(
        begin.elapsed() >= Duration::from_secs(3600),
        "the clock is ours"
    );
    assert!(
        (25..200).contains(&last_sent),
        "still sending after {last_sent} s: guard needless?"
    );
}

#[test]
fn a_peer_silent_for_an_hour_comes_back() {
    let _clock = clock::own();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(silence_and_return());
}

async fn silence_and_return() {
    let (a, b) = pair().await;
    let (b_key, b_port) = (b.key.clone(), b.mesh.port());
    let b_public = b.mesh.public_key();
    let mut wanted = b.as_peer(true);
    wanted.always_on = true;
    a.mesh.set_peers(&[wanted]).unwrap();
    b.mesh.shutdown().await;
    drop(b);

    pass(Duration::from_secs(3600)).await;
    assert_eq!(a.mesh.status()[0].last_handshake, None);
    let before = a.mesh.status()[0].tx_bytes;
    pass(Duration::from_secs(60)).await;
    let sent = a.mesh.status()[0].tx_bytes - before;
    // One initiation (148 bytes) in 5 s, with a pause of 30 s at most.
    assert!(
        (148 * 4..=148 * 14).contains(&sent),
        "{sent} bytes in a minute"
    );

    // It is back, and does not know where we are: only we can begin.
    let again = Member::start_with(2, b_key, b_port);
    again.mesh.set_peers(&[a.as_peer(false)]).unwrap();
    let mut waited = 0;
    while a.mesh.status()[0].last_handshake.is_none() {
        pass(Duration::from_secs(1)).await;
        waited += 1;
        assert!(
            waited < 60,
            "no handshake {waited} s after the peer came back"
        );
    }
    assert_eq!(a.mesh.status()[0].public_key, b_public);
    // And it stays: an idle hour with sessions renewed in time, without a gap.
    for _ in 0..720 {
        pass(Duration::from_secs(5)).await;
        let age = a.mesh.status()[0].last_handshake;
        assert!(
            age.is_some_and(|age| age < Duration::from_secs(180)),
            "{age:?}"
        );
    }
}
