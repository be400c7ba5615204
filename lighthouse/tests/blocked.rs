//! A network that lets no UDP through: datagrams go over TLS to the lighthouse's port 443, until UDP
//! comes through again. Needs root and `nft`.

mod common;

use common::PATIENCE;
use common::member::{ask, echo};
use common::scene::{ASK, ECHO, One, Scene};
use common::world::{Nat, possible};
use holdfast_testnet::run;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Longest silence that an open stream may see when UDP begins to be blocked.
const SILENCE: Duration = Duration::from_secs(15);

fn udp(one: &One, blocked: bool) {
    let rule = if blocked {
        "add rule ip n blocked meta l4proto udp drop"
    } else {
        "flush chain ip n blocked"
    };
    run(&format!("ip netns exec {} nft {rule}", one.routers[0]));
}

/// One byte after the other goes there and back until `is`; the longest that one took.
async fn until(
    one: &One,
    stream: &mut holdfast_mesh::MeshStream,
    is: impl Fn(&One) -> bool,
) -> Duration {
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    while !is(one) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", one.member.mesh.status());
        let asked = Instant::now();
        ask(stream).await;
        longest = longest.max(asked.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    longest
}

async fn goes_over_tls_and_back(one: One) {
    let two = one.other.public_key;
    let over_tls = |one: &One| one.member.lighthouse().way.is_some_and(|w| w.is_stream());
    let direct = |one: &One| {
        let way = one.member.way(two);
        way.and_then(|w| w.endpoint()).is_some()
    };
    assert!(over_tls(&one), "{:?}", one.member.mesh.status());
    let bytes: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    let mut large = one.connect(ECHO).await;
    let begun = Instant::now();
    echo(&mut large, &bytes).await;
    println!("2 MB there and back over TLS: {:?}", begun.elapsed());
    let way = one.member.way(two).unwrap();
    assert!(way.is_relayed() && way.is_stream(), "{way}");

    // The streams stay open over all that follows.
    let mut small = one.connect(ASK).await;
    udp(&one, false);
    let begun = Instant::now();
    let longest = until(&one, &mut small, |one| !over_tls(one) && direct(one)).await;
    println!(
        "UDP allowed: direct after {:?}, no byte took longer than {longest:?}",
        begun.elapsed()
    );
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    echo(&mut large, &bytes).await;
    assert!(direct(&one) && !over_tls(&one));

    udp(&one, true);
    let longest = until(&one, &mut small, over_tls).await.max({
        let asked = Instant::now();
        ask(&mut small).await;
        asked.elapsed()
    });
    println!("UDP blocked again: the open stream goes on after {longest:?}");
    assert!(longest < SILENCE, "{longest:?}");
    echo(&mut large, &bytes).await;
}

#[test]
fn without_udp_it_goes_over_tls_and_back_when_there_is_udp() {
    if possible() {
        let scene = Scene::new("b", [Nat::NoUdp, Nat::PortRestricted], false);
        scene.play(goes_over_tls_and_back);
    }
}
