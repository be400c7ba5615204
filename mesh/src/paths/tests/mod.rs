mod roaming;

use super::path::{DEAD, STALE};
use super::*;
use crate::way::Channel;
use proptest::prelude::*;

fn place(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 1000))
}

fn direct(n: u8) -> Way {
    Way::Direct(place(n))
}

fn relay() -> Way {
    Way::Relayed {
        via: place(200),
        channel: Channel(7),
    }
}

fn pings(asks: &[Ask]) -> Vec<(Way, u64)> {
    let one = |a: &Ask| match a {
        Ask::Ping(way, n) => Some((*way, *n)),
        _ => None,
    };
    asks.iter().filter_map(one).collect()
}

/// A peer that answers on the ways in `open`, after their round trips in ms.
struct World {
    paths: Paths,
    now: Instant,
    open: Vec<(Way, u64)>,
    relay: Option<Way>,
    under_way: Vec<(Instant, Way, u64)>,
}

impl World {
    fn new(configured: Option<SocketAddr>, open: &[(Way, u64)]) -> Self {
        Self {
            paths: Paths::new(false, configured, 0),
            now: Instant::now(),
            open: open.to_vec(),
            relay: None,
            under_way: vec![],
        }
    }

    fn take(&mut self, asks: Vec<Ask>, more: &mut Vec<Ask>) {
        for ask in asks {
            match ask {
                Ask::Ping(way, n) => {
                    if let Some((_, rtt)) = self.open.iter().find(|(w, _)| *w == way) {
                        let at = self.now + Duration::from_millis(*rtt);
                        self.under_way.push((at, way, n));
                    }
                }
                Ask::Relay => {
                    let relay = self.relay;
                    self.paths.set_relay(relay, self.now, more);
                }
                Ask::Measure(..) | Ask::Invite { .. } => {}
            }
        }
    }

    /// Time passes, with traffic.
    fn go(&mut self, ms: u64) {
        self.pass(ms, true);
    }

    /// Time passes in steps of 5 ms; how much was asked.
    fn pass(&mut self, ms: u64, traffic: bool) -> usize {
        let mut asked = 0;
        for _ in 0..ms / 5 {
            self.now += Duration::from_millis(5);
            let mut asks = vec![];
            if traffic {
                self.paths.want(self.now, &mut asks);
            }
            self.paths.tick(self.now, &mut asks);
            asked += asks.len();
            while !asks.is_empty() {
                let mut more = vec![];
                self.take(asks, &mut more);
                asks = more;
            }
            let now = self.now;
            let (due, later) = self.under_way.drain(..).partition(|(at, ..)| *at <= now);
            self.under_way = later;
            for (_, way, n) in due {
                assert!(self.paths.answered(way, n, now));
            }
        }
        asked
    }

    fn current(&self) -> Option<Way> {
        self.paths.current()
    }
}

#[test]
fn relayed_first_then_direct_then_relayed_when_that_dies() {
    let mut world = World::new(Some(place(1)), &[(relay(), 80)]);
    world.relay = Some(relay());
    world.go(50);
    assert_eq!(world.current(), Some(relay()));
    let mut asks = vec![];
    let now = world.now;
    world
        .paths
        .invited(relay(), &[place(2), place(3)], false, now, &mut asks);
    world.open.extend([(direct(2), 30), (direct(3), 5)]);
    world.go(500);
    assert_eq!(world.current(), Some(direct(3)));
    // The quickest dies: the other one is found again, or the relay, in time.
    world.open.retain(|(way, _)| way.is_relayed());
    world.go(3000);
    assert_eq!(world.current(), Some(relay()));
    world.open.push((direct(2), 30));
    world.go(11_000);
    assert_eq!(world.current(), Some(direct(2)));
}

#[test]
fn a_lost_answer_moves_nothing() {
    let mut world = World::new(Some(place(1)), &[(direct(1), 10), (relay(), 80)]);
    world.relay = Some(relay());
    world.go(1000);
    assert_eq!(world.current(), Some(direct(1)));
    world.open.retain(|(way, _)| way.is_relayed());
    world.go(1000);
    world.open.push((direct(1), 10));
    world.go(2000);
    assert_eq!(world.current(), Some(direct(1)));
}

#[test]
fn nothing_but_an_answer_to_an_own_question_moves_a_path() {
    let mut world = World::new(Some(place(1)), &[(direct(1), 10)]);
    world.go(1000);
    let (mut asks, now) = (vec![], world.now);
    world.paths.heard(direct(9), now, &mut asks);
    world.paths.asked(direct(8), now, &mut asks);
    assert!(!world.paths.answered(direct(7), 3, now));
    let asked: Vec<_> = pings(&asks).iter().map(|(way, _)| *way).collect();
    assert_eq!(asked, [direct(9), direct(1), direct(8), direct(1)]);
    // An answer on another way than the question's is none.
    assert!(!world.paths.answered(direct(6), pings(&asks)[0].1, now));
    world.go(3000);
    assert_eq!(world.current(), Some(direct(1)));
}

#[test]
fn a_peer_that_moved_is_followed_within_a_round_trip() {
    let mut world = World::new(Some(place(1)), &[(direct(1), 10)]);
    world.go(1000);
    world.open = vec![(direct(2), 40)];
    let (mut asks, now) = (vec![], world.now);
    world.paths.heard(direct(2), now, &mut asks);
    let mut none = vec![];
    world.take(asks, &mut none);
    world.go(100);
    assert_eq!(world.current(), Some(direct(2)));
}

#[test]
fn a_plain_peer_is_where_it_was_heard_and_is_asked_nothing() {
    let mut paths = Paths::new(true, Some(place(1)), 0);
    let (now, mut asks) = (Instant::now(), vec![]);
    assert_eq!(paths.current(), Some(direct(1)));
    paths.heard(direct(2), now, &mut asks);
    assert_eq!(paths.current(), Some(direct(2)));
    paths.want(now, &mut asks);
    paths.tick(now, &mut asks);
    assert_eq!(asks, []);
    // Silent: sought in turn where it was seen and where it was configured.
    paths.failed(1, now);
    assert_eq!(paths.current(), Some(direct(1)));
    paths.failed(2, now);
    assert_eq!(paths.current(), Some(direct(2)));
}

#[test]
fn a_stream_is_used_only_while_udp_does_not_answer() {
    [300, 2000].into_iter().for_each(stands_in_for_udp);
}

/// UDP answers after `rtt` ms.
fn stands_in_for_udp(rtt: u64) {
    let at: SocketAddr = "[100::1]:1".parse().unwrap();
    let stream = Way::Direct(at);
    let mut world = World::new(Some(place(1)), &[(stream, 10)]);
    world.go(2000);
    assert!(world.paths.without_udp(world.now) > Some(Duration::from_millis(1900)));
    let (now, mut asks) = (world.now, vec![]);
    world.paths.stream(at, now, &mut asks);
    world.take(asks, &mut vec![]);
    world.go(500);
    assert_eq!(world.current(), Some(stream));
    // UDP answers, slower: it is used at once.
    world.open.push((direct(1), rtt));
    for _ in 0..75 {
        world.go(100);
        let (now, mut asks) = (world.now, vec![]);
        world.paths.retry_udp(now, &mut asks);
        world.take(asks, &mut vec![]);
    }
    assert_eq!(world.current(), Some(direct(1)));
    assert_eq!(world.paths.without_udp(world.now), None);
    // And no more once it is silent; a new address of the configuration takes nothing away.
    world.open.retain(|(way, _)| *way == stream);
    world.go(8000);
    assert_eq!(world.current(), Some(stream));
    world.paths.configure(false, Some(place(2)), true);
    assert_eq!(world.current(), Some(stream));
    world.paths.gone(at, world.now);
    assert!(world.current().is_some_and(|way| way != stream));
}

#[test]
fn a_stream_of_before_gives_way_to_the_one_that_a_member_opens_after_it_moved() {
    let at: [SocketAddr; 2] = ["[100::1]:1", "[100::2]:1"].map(|a| a.parse().unwrap());
    let [before, after] = at.map(Way::Direct);
    // The new one is the slower: only silence tells that the other is dead.
    let mut world = World::new(None, &[(before, 5), (after, 20)]);
    let open = |world: &mut World, at| {
        let (now, mut asks) = (world.now, vec![]);
        world.paths.stream(at, now, &mut asks);
        world.take(asks, &mut vec![]);
        world.pass(500, false);
    };
    open(&mut world, at[0]);
    assert_eq!(world.current(), Some(before));
    // Both live: the quicker one stays.
    open(&mut world, at[1]);
    assert_eq!(world.current(), Some(before));
    world.paths.gone(at[1], world.now);
    world.open.retain(|(way, _)| *way == after);
    open(&mut world, at[1]);
    assert_eq!(world.current(), Some(after));
}

#[test]
fn a_peer_that_went_over_to_its_stream_is_followed_without_traffic_of_our_own() {
    let at: SocketAddr = "[100::1]:1".parse().unwrap();
    let stream = Way::Direct(at);
    for data in [false, true] {
        let mut world = World::new(Some(place(1)), &[(direct(1), 10), (stream, 20)]);
        let (now, mut asks) = (world.now, vec![]);
        world.paths.stream(at, now, &mut asks);
        world.take(asks, &mut vec![]);
        world.go(1000);
        assert_eq!(world.current(), Some(direct(1)));
        world.pass((IN_USE + WATCH).as_millis() as u64, false);
        world.open.retain(|(way, _)| *way == stream);
        // All of it comes by the stream now: questions, or data.
        let (now, mut asks) = (world.now, vec![]);
        if data {
            world.paths.heard(stream, now, &mut asks);
        } else {
            world.paths.asked(stream, now, &mut asks);
        }
        world.take(asks, &mut vec![]);
        world.pass(500, false);
        assert_eq!(world.current(), Some(stream), "{data}");
    }
}

#[test]
fn an_idle_peer_is_left_in_peace() {
    let mut world = World::new(Some(place(1)), &[(direct(1), 10)]);
    world.go(1000);
    let asked = world.pass(600_000, false);
    assert!(asked <= 15, "{asked}");
    // What was confirmed last is tried first.
    assert_eq!(world.current(), Some(direct(1)));
    assert!(STALE > DEAD);
}

#[test]
fn a_peer_out_of_reach_is_sought_less_and_less() {
    let mut world = World::new(Some(place(1)), &[]);
    world.go(60_000);
    let busy = world.paths.number;
    world.go(600_000);
    assert!(world.paths.number - busy < 1500, "{}", world.paths.number);
}

#[test]
fn a_relay_that_was_silent_for_a_while_is_used_again() {
    // A place that never answers is there to be guessed.
    let mut world = World::new(Some(place(1)), &[(relay(), 40)]);
    world.relay = Some(relay());
    world.go(2000);
    assert_eq!(world.current(), Some(relay()));
    world.open.clear();
    world.go(5000);
    assert_eq!(world.current(), Some(direct(1)));
    world.open.push((relay(), 40));
    world.go(1500);
    assert_eq!(world.current(), Some(relay()));
}

#[test]
fn a_peer_that_moves_all_the_time_is_followed() {
    let mut world = World::new(None, &[]);
    for n in 1..=3 * MAX_PATHS as u8 {
        world.open = vec![(direct(n), 10)];
        let (mut asks, now) = (vec![], world.now);
        world.paths.heard(direct(n), now, &mut asks);
        world.take(asks, &mut vec![]);
        world.pass(60_000, false);
        assert_eq!(world.current(), Some(direct(n)));
    }
}

#[test]
fn a_relay_that_the_peer_showed_is_not_put_out_by_the_own_dead_one() {
    let through = |n| Way::Relayed {
        via: place(n),
        channel: Channel(n.into()),
    };
    let mut world = World::new(None, &[(through(2), 20)]);
    world.relay = Some(through(1));
    world.go(3000);
    let (mut asks, now) = (vec![], world.now);
    world.paths.asked(through(2), now, &mut asks);
    world.take(asks, &mut vec![]);
    world.go(100);
    assert_eq!(world.current(), Some(through(2)));
    assert!(!world.paths.follows(through(1)));
    let moved = Way::Relayed {
        via: place(3),
        channel: Channel(2),
    };
    assert!(world.paths.follows(moved));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn memory_is_bounded_and_a_living_direct_path_is_used(
        steps in proptest::collection::vec((0u8..5, 0u8..60, 1u64..4000), 0..80),
    ) {
        let mut paths = Paths::new(false, None, 0);
        let mut now = Instant::now();
        for (what, n, ms) in steps {
            now += Duration::from_millis(ms);
            let mut asks = vec![];
            match what {
                0 => paths.heard(direct(n), now, &mut asks),
                1 => {
                    let told: Vec<_> = (n..n + 16).map(place).collect();
                    paths.invited(relay(), &told, true, now, &mut asks);
                }
                2 => paths.want(now, &mut asks),
                3 => paths.roamed(now, &mut asks),
                _ => paths.tick(now, &mut asks),
            }
            if let Some((way, number)) = pings(&asks).into_iter().find(|(w, _)| !w.is_relayed()) {
                prop_assert!(paths.answered(way, number, now));
                prop_assert!(paths.current().is_some_and(|w| !w.is_relayed()));
            }
            prop_assert!(paths.direct.len() <= MAX_PATHS);
            prop_assert!(asks.len() <= 2 * MAX_PATHS + 4);
        }
    }
}
