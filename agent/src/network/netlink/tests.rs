//! A network of the test's own, and what is asked there.

use super::*;
use crate::network::plan::Route;
use std::process::Command;

/// Set where this program runs in a network that it may change.
const INSIDE: &str = "HOLDFAST_TEST_OWN_NETWORK";

/// Where a test runs.
pub enum Inside {
    /// In a network of its own.
    Yes,
    /// It ran there, or none can be made.
    Done,
}

/// Has the test of that name run again in a network of its own; says so where none can be made.
pub fn in_a_network_of_its_own(test: &str) -> Inside {
    if std::env::var_os(INSIDE).is_some() {
        return Inside::Yes;
    }
    let run = Command::new("unshare")
        .args(["-rn"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(INSIDE, "1")
        .output();
    match run {
        Ok(out) if !String::from_utf8_lossy(&out.stderr).contains("unshare") => {
            let told = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(out.status.success() && told.contains("1 passed"), "{told}");
        }
        _ => holdfast_testnet::skipped("no network namespaces here"),
    }
    Inside::Done
}

/// `ip LINE`.
pub fn ip(line: &str) -> String {
    let out = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {line}: {out:?}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn what_is_preferred_goes_its_way_whatever_routes_others_bring() {
    let name = concat!(
        "network::netlink::tests::",
        "what_is_preferred_goes_its_way_whatever_routes_others_bring"
    );
    if matches!(in_a_network_of_its_own(name), Inside::Yes) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(preferred());
    }
}

async fn preferred() {
    for line in [
        "lan address add 192.0.2.2/24",
        "mesh address add 100.64.16.1/20",
    ] {
        let (name, rest) = line.split_once(' ').unwrap();
        ip(&format!("tuntap add dev {name} mode tun"));
        ip(&format!("link set {name} up"));
        ip(&format!("{rest} dev {name}"));
    }
    ip("route add 100.64.17.0/24 via 192.0.2.1 dev lan");
    let netlink = Netlink::open().unwrap();
    let index = netlink.index_of("mesh").await.unwrap().unwrap();
    let way = |to: &str| ip(&format!("route get {to}"));
    assert!(way("100.64.17.9").contains("dev lan"));
    for _ in 0..2 {
        let nets = ["100.64.16.1/20", "fd00:1::1/64"];
        for net in nets {
            netlink.prefer(index, net.parse().unwrap()).await.unwrap();
        }
    }
    assert!(
        way("100.64.17.9").contains("dev mesh"),
        "{}",
        way("100.64.17.9")
    );
    assert!(way("100.64.17.9").contains("src 100.64.16.1"));
    assert!(way("192.0.2.9").contains("dev lan"));
    assert!(way("100.64.16.1").contains("dev lo"));
    assert_eq!(ip("rule show").matches("lookup 1380").count(), 1);
    // A router in a range of the cluster.
    let lan = netlink.index_of("lan").await.unwrap().unwrap();
    let route = Route {
        to: "0.0.0.0/0".parse().unwrap(),
        via: Some("100.64.20.1".parse().unwrap()),
        on_link: true,
    };
    netlink.add_route(lan, &route, 1026).await.unwrap();
    assert!(way("198.51.100.1").contains("via 100.64.20.1 dev lan"));
}

#[tokio::test]
async fn a_kernel_that_gives_no_answer_holds_nobody_for_ever() {
    // Requests that nobody takes from their queue.
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    let netlink = Netlink {
        handle: handle.clone(),
        patience: Duration::from_millis(20),
        unanswered: Arc::default(),
        _listens: handle,
        changes: Arc::default(),
    };
    let net: IpNet = "192.0.2.1/24".parse().unwrap();
    let route = Route {
        to: net,
        via: None,
        on_link: false,
    };
    assert!(netlink.links().await.is_err());
    assert!(netlink.index_of("lo").await.is_err());
    assert!(netlink.up(1, None).await.is_err());
    assert!(netlink.add_address(1, net, None).await.is_err());
    assert!(netlink.keep_addresses(1, &[], true).await.is_err());
    assert!(netlink.prefer(1, net).await.is_err());
    assert!(netlink.prefer_no_more(net).await.is_err());
    assert!(netlink.add_route(1, &route, 1).await.is_err());
    assert!(netlink.addresses().await.is_err());
    assert!(netlink.interfaces().await.is_err());
    assert!(netlink.routes().await.is_err());
    assert_eq!(netlink.unanswered(), 11);
    drop(connection);
}
