//! Which path two members find, by the kind of NAT that each is behind.
//!
//! Every place is a network namespace of this process; nftables are the NATs. Needs root and `nft`;
//! everything is removed at the end. `make test-nat` prints the table.

mod common;

use common::member::ask;
use common::scene::{ASK, One, Scene};
use common::world::{Nat, possible};
use holdfast_testnet::run;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// A direct path is waited for so long.
const RACE: Duration = Duration::from_secs(3);
/// Behind two cones it is there in time.
const IN_TIME: Duration = Duration::from_secs(1);
/// When the direct path is cut, an open stream goes on in time.
const FAIL_OVER: Duration = Duration::from_secs(5);
/// Pairs that are tried at a time.
const AT_A_TIME: usize = 4;

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
        for rule in [
            "ip n inward_all ip saddr { 203.0.113.20, 203.0.113.80 } drop",
            "ip6 f inward_all ip6 saddr 2001:db8:2::/64 drop",
        ] {
            run(&format!(
                "ip netns exec {} nft add rule {rule}",
                one.routers[0]
            ));
        }
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

/// What is tried, and what came of it.
struct Row {
    tag: String,
    nats: [Nat; 2],
    same_lan: bool,
    cut: bool,
    found: Option<Found>,
}

impl Row {
    fn new(tag: String, nats: [Nat; 2]) -> Self {
        Self {
            tag,
            nats,
            same_lan: false,
            cut: false,
            found: None,
        }
    }

    fn play(mut self) -> Self {
        self.found = Some(pair(&self.tag, self.nats, self.same_lan, self.cut));
        self
    }

    /// A direct path that should be there in time, and is not.
    fn late(&self) -> bool {
        let [a, b] = self.nats;
        let direct = self.found.as_ref().and_then(|f| f.direct);
        !self.same_lan && a.cone() && b.cone() && direct.is_none_or(|t| t > IN_TIME)
    }

    fn name(&self) -> String {
        let [a, b] = self.nats.map(|nat| format!("{nat:?}"));
        let what = match (self.same_lan, self.cut) {
            (true, _) => "the same LAN",
            (_, true) => "cut later",
            _ => "",
        };
        format!("{a:<18} {b:<18} {what:<13}")
    }

    /// What is not as it should be.
    fn wrong(&self) -> Option<&'static str> {
        let ([a, b], found) = (self.nats, self.found.as_ref()?);
        let outer = Some(IpAddr::from([203, 0, 113, 10]));
        if self.late() {
            return Some("late");
        }
        if self.cut && found.cut.is_none_or(|t| t >= FAIL_OVER) {
            return Some("silent for too long");
        }
        if self.same_lan {
            return (!found.lan).then_some("not by the LAN");
        }
        match found.direct.is_some() {
            direct if direct != a.meets(b) => Some("not as it should be"),
            _ if found.stream != (a == Nat::NoUdp) => Some("over TLS, or not"),
            _ if a == Nat::Hairpin && found.at != outer => Some("not by the outer address"),
            _ => None,
        }
    }
}

/// All of them, some at a time, in the order they came in.
fn play(rows: Vec<Row>) -> Vec<Row> {
    let rows = Mutex::new(rows.into_iter().enumerate());
    let done = Mutex::new(vec![]);
    let next = || rows.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((at, row)) = next() {
                    let row = row.play();
                    done.lock().unwrap().push((at, row));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, row)| row).collect()
}

#[test]
fn every_pair_of_nats_finds_a_path_and_a_direct_one_where_there_is_one() {
    if !possible() {
        return;
    }
    use Nat::*;
    let kinds = [
        NoUdp,
        V6Only,
        Symmetric,
        FullCone,
        AddressRestricted,
        PortRestricted,
        Double,
    ];
    let mut rows = vec![];
    for (n, a) in kinds.into_iter().enumerate() {
        for (m, b) in kinds.into_iter().enumerate().skip(n) {
            rows.push(Row::new(format!("{n}{m}"), [a, b]));
        }
    }
    rows.push(Row::new("h".into(), [Hairpin, Hairpin]));
    rows.push(Row {
        same_lan: true,
        ..Row::new("l".into(), [PortRestricted, PortRestricted])
    });
    let cut = [
        [PortRestricted, PortRestricted],
        [Double, PortRestricted],
        [V6Only, V6Only],
    ];
    for (nats, tag) in cut.into_iter().zip(["x", "y", "z"]) {
        rows.push(Row {
            cut: true,
            ..Row::new(tag.into(), nats)
        });
    }
    let mut wrong = vec![];
    for mut row in play(rows) {
        // Several at a time on a busy machine: whoever was late has another try, alone.
        if row.late() {
            println!("{}late: {}", row.name(), row.found.as_ref().unwrap());
            row = row.play();
        }
        let found = row.found.as_ref().unwrap();
        println!("{}{found}", row.name());
        wrong.extend(
            row.wrong()
                .map(|why| format!("{}{found}: {why}", row.name())),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
