//! A link that carries 1400 bytes on the way, and nobody who says so: streams with large segments
//! come through, cut on the way, and the path says so. Needs root and `nft`.

mod common;

use common::PATIENCE;
use common::member::{echo, echoes};
use common::scene::{ECHO, One, Scene};
use common::world::{Nat, possible, run};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Less than a full datagram: 1380 inside takes 1440 over IPv4.
const LINK: u16 = 1400;
/// No word of what is too large. The calls to the lighthouse are not what is tested: their segments
/// are small.
const MUTE: &str = "table inet mute {
    chain own { type filter hook output priority 0
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
    }
    chain onward { type filter hook forward priority 0
        tcp flags syn tcp option maxseg size set 1200
    }
}\n";

/// `at_once`: also in a stream that was opened before the path was measured.
async fn large_segments_come_through(one: One, at_once: bool) -> (Option<u16>, bool) {
    let bytes: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    let mut stream = one.connect(ECHO).await;
    let begun = Instant::now();
    if at_once {
        echo(&mut stream, &bytes).await;
        println!("2 MB there and back: {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    let two = one.other.public_key;
    let status = loop {
        let status = one.member.status(two);
        let direct = status.way.and_then(|w| w.endpoint()).is_some();
        if direct && status.mtu.is_some() {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
        echo(&mut stream, &bytes[..1000]).await;
        sleep(Duration::from_millis(20)).await;
    };
    if !at_once {
        // The other side may measure later: then its half of the stream does not come through.
        let begun = Instant::now();
        stream = one.connect(ECHO).await;
        while !echoes(&mut stream, &bytes, Duration::from_secs(5)).await {
            assert!(begun.elapsed() < PATIENCE, "no stream comes through");
            stream = one.connect(ECHO).await;
        }
    }
    let begun = Instant::now();
    echo(&mut stream, &bytes).await;
    println!("again, measured: {:?}; {status:?}", begun.elapsed());
    (status.mtu, status.narrow)
}

/// Makes the link between two places narrow, and both mute.
fn narrow(scene: &Scene, ends: [(&str, &str); 2]) {
    for (place, link) in ends {
        let place = scene.world.name(place);
        run(&format!("ip -n {place} link set {link} mtu {LINK}"));
        scene.world.rules(&place, MUTE);
    }
}

#[test]
fn a_narrow_link_that_says_nothing_is_found_and_datagrams_are_cut() {
    if !possible() {
        return;
    }
    let scene = Scene::new("m", [Nat::Double, Nat::PortRestricted], false);
    narrow(&scene, [("r1", "wan"), ("c", "vr1")]);
    assert_eq!(
        scene.play(|one| large_segments_come_through(one, true)),
        (Some(LINK), true)
    );
    // Here the routers cut nothing: what opens once the path is measured fits.
    let scene = Scene::new("n", [Nat::V6Only, Nat::V6Only], false);
    narrow(&scene, [("r1", "wan"), ("w", "vr1")]);
    let (mtu, cut) = scene.play(|one| large_segments_come_through(one, false));
    assert!(
        cut && mtu.is_some_and(|m| (1280..=LINK).contains(&m)),
        "{mtu:?}"
    );
    // And where there is no such link nothing is cut.
    let scene = Scene::new("o", [Nat::PortRestricted, Nat::PortRestricted], false);
    assert_eq!(
        scene.play(|one| large_segments_come_through(one, true)),
        (Some(1452), false)
    );
}
