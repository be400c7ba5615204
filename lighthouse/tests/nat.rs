//! Which path two members find, by the kind of NAT that each is behind.
//!
//! Every place is a network namespace of this process; nftables are the NATs. Needs root and `nft`;
//! everything is removed at the end. `make test-nat` prints the table.

mod common;

use common::member::ask;
use common::scene::{ASK, One, Scene};
use common::world::{Nat, possible, run};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// A direct path is waited for so long.
const RACE: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug)]
struct Found {
    /// Until the first byte came back, relayed.
    first: Duration,
    /// Until both used a direct path; none: they stayed relayed.
    direct: Option<Duration>,
    at: Option<IpAddr>,
    lan: bool,
    /// Over TLS.
    stream: bool,
    /// Longest silence of the open stream when the direct path was cut.
    cut: Option<Duration>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.first.as_millis();
        match self.direct {
            Some(t) => {
                let kind = if self.lan { "LAN" } else { "direct" };
                write!(f, "{kind} after {} ms", t.as_millis())?;
            }
            None if self.stream => write!(f, "relayed over TLS")?,
            None => write!(f, "relayed")?,
        }
        write!(f, " (first answer {first} ms)")?;
        match self.cut {
            Some(t) => write!(f, ", cut: relayed after {} ms", t.as_millis()),
            None => Ok(()),
        }
    }
}

/// Which path the first member finds; `cut`: the direct path is cut then.
async fn find(one: One, cut: bool) -> Found {
    let begun = Instant::now();
    let mut stream = one.connect(ASK).await;
    let (mut first, mut direct) = (None, None);
    let two = one.other.public_key;
    while direct.is_none() && begun.elapsed() < RACE {
        let answer = ask(&mut stream).await;
        first.get_or_insert_with(|| begun.elapsed());
        let here = one.member.way(two).is_some_and(|w| !w.is_relayed());
        direct = (here && answer == 1).then(|| begun.elapsed());
        sleep(Duration::from_millis(2)).await;
    }
    let way = one.member.way(two);
    let at = way.and_then(|w| w.endpoint()).map(|a| a.ip());
    let mut silence = None;
    if cut && direct.is_some() {
        // Nothing from the other's router comes in any more.
        run(&format!(
            "ip netns exec {} nft add rule ip n inward_all ip saddr 203.0.113.20 drop",
            one.routers[0]
        ));
        let begun = Instant::now();
        let mut longest = Duration::ZERO;
        while begun.elapsed() < RACE + RACE {
            let asked = Instant::now();
            ask(&mut stream).await;
            longest = longest.max(asked.elapsed());
            sleep(Duration::from_millis(20)).await;
        }
        assert!(one.member.way(two).is_some_and(|w| w.is_relayed()));
        silence = Some(longest);
    }
    Found {
        cut: silence,
        first: first.unwrap(),
        direct,
        at,
        lan: at == Some(one.own[1]) && one.own[1].is_ipv4(),
        stream: way.is_some_and(|w| w.is_stream()),
    }
}

fn pair(tag: &str, nats: [Nat; 2], same_lan: bool, cut: bool) -> Found {
    let scene = Scene::new(tag, nats, same_lan);
    scene.play(move |one| find(one, cut))
}

#[test]
fn every_pair_of_nats_finds_a_path_and_a_direct_one_where_there_is_one() {
    if !possible() {
        return;
    }
    use Nat::*;
    let pairs = [
        (FullCone, FullCone, true),
        (FullCone, Symmetric, true),
        (AddressRestricted, PortRestricted, true),
        (AddressRestricted, Symmetric, true),
        (PortRestricted, PortRestricted, true),
        (PortRestricted, Symmetric, false),
        (Symmetric, Symmetric, false),
        (Double, PortRestricted, true),
        (Hairpin, Hairpin, true),
        (V6Only, V6Only, true),
        (V6Only, PortRestricted, false),
        (NoUdp, PortRestricted, false),
        (NoUdp, NoUdp, false),
    ];
    let mut wrong = vec![];
    for (n, (a, b, direct)) in pairs.into_iter().enumerate() {
        let found = pair(&n.to_string(), [a, b], false, false);
        println!("{:<18} {:<18} {found}", format!("{a:?}"), format!("{b:?}"));
        if found.direct.is_some() != direct || found.stream != (a == NoUdp) {
            wrong.push(format!("{a:?} and {b:?}: {found}"));
        }
        let outer = Some(IpAddr::from([203, 0, 113, 10]));
        if a == Hairpin && found.at != outer {
            wrong.push(format!("hairpin: {found:?}"));
        }
    }
    let found = pair("l", [PortRestricted, PortRestricted], true, false);
    println!("{:<18} {:<18} {found}", "the same LAN", "");
    assert!(found.lan, "{found}");
    let found = pair("x", [PortRestricted, PortRestricted], false, true);
    println!("{:<18} {:<18} {found}", "cut later", "");
    assert!(found.cut.is_some_and(|t| t < Duration::from_secs(5)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
