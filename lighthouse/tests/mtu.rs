//! A link that carries 1400 bytes on the way, and nobody who says so: streams with large segments
//! come through, cut on the way, and the path says so. Needs root and `nft`.

mod common;

use common::PATIENCE;
use common::member::echo;
use common::scene::{ECHO, One, Scene};
use common::world::{Nat, possible};
use holdfast_testnet::{nft, run};
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

/// How much the way to the other carries whole, or the leg to the lighthouse where it is `relayed`, and
/// whether that is less than a full datagram.
async fn large_segments_come_through(one: One, relayed: bool) -> (Option<u16>, bool) {
    let bytes: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    // Opened before anything was measured.
    let mut stream = one.connect(ECHO).await;
    let begun = Instant::now();
    echo(&mut stream, &bytes).await;
    println!("2 MB there and back: {:?}", begun.elapsed());
    let begun = Instant::now();
    let two = one.other.public_key;
    let status = loop {
        let here = one.member.status(two);
        let measured = if relayed {
            one.member.lighthouse()
        } else {
            here.clone()
        };
        let as_said = here.way.is_some_and(|w| w.is_relayed() == relayed);
        if as_said && measured.mtu.is_some() {
            break measured;
        }
        assert!(begun.elapsed() < PATIENCE, "{here:?} {measured:?}");
        echo(&mut stream, &bytes[..1000]).await;
        sleep(Duration::from_millis(20)).await;
    };
    let begun = Instant::now();
    echo(&mut stream, &bytes).await;
    println!("again, measured: {:?}; {status:?}", begun.elapsed());
    // One is served at a time.
    drop(stream);
    let begun = Instant::now();
    let mut stream = one.connect(ECHO).await;
    echo(&mut stream, &bytes).await;
    println!("opened since: {:?}", begun.elapsed());
    (status.mtu, status.narrow)
}

/// Makes the link between two places narrow, and both mute.
fn narrow(scene: &Scene, ends: [(&str, &str); 2]) {
    for (place, link) in ends {
        let place = scene.world.name(place);
        run(&format!("ip -n {place} link set {link} mtu {LINK}"));
        nft(&place, MUTE);
    }
}

#[test]
fn a_narrow_link_that_says_nothing_is_found_and_datagrams_are_cut() {
    if !possible() {
        return;
    }
    use Nat::{Double, PortRestricted, Symmetric, V6Only};
    // IPv4 is cut on its way, by the routers; IPv6 by whoever sends.
    let v4 = [("r1", "wan"), ("c", "vr1")];
    let v6 = [("r1", "wan"), ("w", "vr1")];
    for (tag, nats, link, relayed) in [
        ("m", [Double, PortRestricted], v4, false),
        ("n", [V6Only, V6Only], v6, false),
        ("p", [Double, Symmetric], v4, true),
        ("q", [V6Only, Symmetric], v6, true),
    ] {
        println!("{nats:?}");
        let scene = Scene::new(tag, nats, false);
        narrow(&scene, link);
        let (mtu, cut) = scene.play(move |one| large_segments_come_through(one, relayed));
        assert_eq!((mtu, cut), (Some(LINK), true), "{nats:?}");
    }
    // And where there is no such link nothing is cut.
    let scene = Scene::new("o", [PortRestricted, PortRestricted], false);
    assert_eq!(
        scene.play(|one| large_segments_come_through(one, false)),
        (Some(1452), false)
    );
}
