//! Whether this machine is found where it was: what of the uplinks' news makes it begin its
//! connections anew.

use super::Uplinks;
use super::plan::Route;
use crate::node::Node;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

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

/// Tells of each move from now on by [`Node::roamed`], for ever.
pub fn tell(node: Arc<Node>, mut uplinks: watch::Receiver<Uplinks>) -> impl Future<Output = ()> {
    let mut last = uplinks.borrow_and_update().clone();
    async move {
        while uplinks.changed().await.is_ok() {
            let now = uplinks.borrow_and_update().clone();
            if moved(&last, &now) {
                tracing::info!("this machine is on another network, or at another place of it");
                node.roamed.send_modify(|times| *times += 1);
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
