//! How much of a direct stream's rate a relayed one has. Needs root and `nft`.

mod common;

use common::PATIENCE;
use common::member::ask;
use common::scene::{ASK, One, SINK, Scene};
use common::world::{Nat, possible};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

/// Of each stream.
const BYTES: usize = 48 << 20;
const RUNS: usize = 5;

/// Bytes a second of one stream, once its path is what it will be.
async fn rate(one: One, relayed: bool) -> f64 {
    let mut small = one.connect(ASK).await;
    let two = one.other.public_key;
    let begun = Instant::now();
    loop {
        let back = ask(&mut small).await == 0;
        let here = one.member.way(two).is_some_and(|w| w.is_relayed());
        if here == relayed && back == relayed {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
        sleep(Duration::from_millis(5)).await;
    }
    let mut stream = one.connect(SINK).await;
    let chunk = vec![7; 256 << 10];
    let begun = Instant::now();
    let send = async {
        stream.write_u64(BYTES as u64).await.unwrap();
        for _ in 0..BYTES / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.read_u8().await.unwrap()
    };
    timeout(PATIENCE, send).await.unwrap();
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(one.member.way(two).is_some_and(|w| w.is_relayed()), relayed);
    BYTES as f64 / took
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

#[test]
fn a_relayed_stream_has_half_the_rate_of_a_direct_one() {
    if !possible() {
        return;
    }
    let mut rates = [vec![], vec![], vec![]];
    for run in 0..RUNS {
        use Nat::{NoUdp, PortRestricted, Symmetric};
        let kinds = [PortRestricted, Symmetric, NoUdp];
        for (rates, nat) in rates.iter_mut().zip(kinds) {
            let relayed = nat != PortRestricted;
            let other = if relayed { Symmetric } else { PortRestricted };
            let scene = Scene::new(&format!("q{run}"), [nat, other], false);
            rates.push(scene.play(move |one| rate(one, relayed)));
        }
    }
    let [direct, relayed, tls] = rates.map(median);
    println!(
        "MB/s, medians of {RUNS}: direct {:.0}, relayed {:.0} ({:.2}), relayed over TLS {:.0} ({:.2})",
        direct / 1e6,
        relayed / 1e6,
        relayed / direct,
        tls / 1e6,
        tls / direct
    );
    assert!(relayed / direct >= 0.5, "{}", relayed / direct);
}
