//! Whether this machine is found where it was: what of the uplinks' news makes it begin its
//! connections anew.

use super::Uplinks;
use super::plan::Route;
use crate::node::Node;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// By what a machine is on one network.
type Place<'a> = (&'a str, BTreeSet<IpNet>, &'a [Route], u64);

/// Interfaces without an address lead nowhere.
fn places(uplinks: &Uplinks) -> Vec<Place<'_>> {
    let some = uplinks.iter().filter(|(_, u)| !u.addresses.is_empty());
    some.map(|(name, u)| {
        let addresses = u.addresses.iter().copied().collect();
        (name.as_str(), addresses, u.routes.as_slice(), u.came_up)
    })
    .collect()
}

/// Whether it is on other networks than before, or at another place of one: an address, a router or
/// an interface changed, or a link was lost and is back. A lease that was merely renewed, and other name
/// or time servers, are no move; nor is the loss of all, after which nobody can be told anything.
fn moved(before: &Uplinks, now: &Uplinks) -> bool {
    let now = places(now);
    !now.is_empty() && places(before) != now
}

/// After a move nothing is told for so long; it doubles with each that follows soon,
const LEAST: Duration = Duration::from_secs(1);
/// up to this.
const MOST: Duration = Duration::from_secs(300);
/// A move after so much calm is a first one again.
const CALM: Duration = Duration::from_secs(900);

/// How long to rest after a move, `since` the one before, when the last rest was `rest`. Routers that
/// contradict each other, or somebody who plays router, must not keep every connection from coming up.
fn rest(rest: Duration, since: Option<Duration>) -> Duration {
    match since {
        Some(since) if since < CALM => (rest * 2).clamp(LEAST, MOST),
        _ => LEAST,
    }
}

/// Tells of each move from now on by [`Node::roamed`], for ever.
pub fn tell(node: Arc<Node>, mut uplinks: watch::Receiver<Uplinks>) -> impl Future<Output = ()> {
    let mut last = uplinks.borrow_and_update().clone();
    let (mut told, mut pause): (Option<Instant>, _) = (None, LEAST);
    async move {
        while uplinks.changed().await.is_ok() {
            let now = uplinks.borrow_and_update().clone();
            if moved(&last, &now) {
                tracing::info!("this machine is on another network, or at another place of it");
                node.roamed.send_modify(|times| *times += 1);
                pause = rest(pause, told.map(|at| at.elapsed()));
                told = Some(Instant::now());
                sleep(pause).await;
            }
            // Back at the place of before, after none at all, is a move too.
            last = now;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan::{Uplink, default_net};

    fn at(address: &str, via: &str) -> Uplinks {
        let via = via.parse().unwrap();
        let uplink = Uplink {
            addresses: vec![address.parse().unwrap()],
            routes: vec![Route {
                to: default_net(via),
                via: Some(via),
                on_link: false,
            }],
            came_up: 1,
            ..Uplink::default()
        };
        Uplinks::from([("eth0".into(), uplink)])
    }

    #[test]
    fn a_renewed_lease_is_no_move_and_another_address_router_or_link_is() {
        let home = at("192.0.2.7/24", "192.0.2.1");
        let with = |change: fn(&mut Uplink)| {
            let mut other = home.clone();
            other.values_mut().for_each(change);
            other
        };
        assert!(!moved(&home, &home.clone()));
        assert!(!moved(&home, &with(|u| u.ntp = vec!["192.0.2.3".into()])));
        assert!(!moved(
            &home,
            &with(|u| u.dns = vec!["192.0.2.3".parse().unwrap()])
        ));
        assert!(moved(&home, &at("192.0.2.8/24", "192.0.2.1")));
        assert!(moved(&home, &at("192.0.2.7/24", "192.0.2.2")));
        assert!(moved(&home, &with(|u| u.came_up += 1)));
        let wlan = Uplinks::from([("wlan0".into(), home["eth0"].clone())]);
        assert!(moved(&home, &wlan));
    }

    #[test]
    fn the_loss_of_all_addresses_is_no_move_and_their_return_is() {
        let home = at("192.0.2.7/24", "192.0.2.1");
        let none = Uplinks::from([("eth0".into(), Uplink::default())]);
        assert!(!moved(&home, &none) && moved(&none, &home));
        assert!(moved(&Uplinks::new(), &home) && !moved(&none, &Uplinks::new()));
    }

    #[test]
    fn moves_without_end_are_told_less_and_less_and_one_after_calm_at_once() {
        let (mut pause, mut moves) = (LEAST, 0);
        let mut time = Duration::ZERO;
        let mut since = None;
        while time < Duration::from_secs(3600) {
            pause = rest(pause, since);
            // The next news is there already.
            since = Some(pause);
            time += pause;
            moves += 1;
        }
        assert!(moves < 25, "{moves}");
        assert_eq!(rest(MOST, Some(CALM)), LEAST);
        assert_eq!(rest(LEAST, None), LEAST);
    }

    #[test]
    fn the_order_of_addresses_says_nothing() {
        let mut one = at("192.0.2.7/24", "192.0.2.1");
        one.get_mut("eth0").unwrap().addresses = vec![
            "2001:db8::7/64".parse().unwrap(),
            "2001:db8::8/64".parse().unwrap(),
        ];
        let mut two = one.clone();
        two.get_mut("eth0").unwrap().addresses.reverse();
        assert!(!moved(&one, &two));
    }
}
