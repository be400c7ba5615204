//! Members that are no nodes, on machines of their own (namespaces): Linux machines that join, and
//! a phone, played by wireguard-go, with the configuration that `holdfast client new` makes.
//!
//! Needs root; installs what it needs otherwise. Everything is removed at the end.

#[path = "common/stage.rs"]
mod stage;

use holdfast_testnet::{WireguardGo, run, until};
use stage::{OPERATOR, Stage};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

const PHONE: usize = 4;
/// Whom the policy evicts, reachable members drop within this time.
const EVICTED: Duration = Duration::from_secs(2);

/// What `wg` takes of a configuration for `wg-quick`, and the addresses.
fn for_wg(text: &str) -> (String, Vec<String>) {
    let own = |l: &&str| !l.starts_with("Address") && !l.starts_with("MTU");
    let stripped: Vec<&str> = text.lines().filter(own).collect();
    let addresses = text.lines().find_map(|l| l.strip_prefix("Address = "));
    let addresses = addresses.unwrap().split(", ").map(Into::into).collect();
    (stripped.join("\n") + "\n", addresses)
}

#[test]
fn a_lighthouse_put_back_hears_of_a_member_that_is_off() {
    let Some(stage) = Stage::new("q", 3) else {
        return;
    };
    let store = stage.path("home/lighthouse/store.redb");
    let backup = stage.path("backup");
    let lighthouse = stage.lighthouse();
    let (_n1, _) = stage.join(2, "n1");
    drop(lighthouse);
    std::fs::copy(&store, &backup).unwrap();
    let lighthouse = stage.lighthouse();
    let (n2, _) = stage.join(3, "n2");
    let names = || {
        let nodes = stage.json(OPERATOR, "nodes");
        let all = nodes.as_array().unwrap().iter();
        all.map(|v| v["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let status = format!("mesh status --dir {}", stage.member("n1"));
    until("n1 knows n2", || {
        let peers = stage.json(2, &status);
        let mut all = peers.as_array().unwrap().iter();
        all.any(|p| p["name"] == "n2").then_some(())
    });
    // Off for good, as far as anybody knows.
    drop((n2, lighthouse));
    std::fs::copy(&backup, &store).unwrap();
    let _lighthouse = stage.lighthouse();
    assert_eq!(names(), ["n1"]);
    until("n1 hands on that n2 is a member", || {
        (names() == ["n1", "n2"]).then_some(())
    });
}

#[test]
fn a_machine_without_udp_is_reached_again_soon_after_it_moved() {
    let Some(stage) = Stage::new("r", 3) else {
        return;
    };
    let _lighthouse = stage.lighthouse();
    let place = stage.wire.at(2).to_owned();
    let router = format!("ip -n {place} route add default via 10.98.0.1 dev wire");
    run(&router);
    stage.wire.without_udp(2);
    let (_n1, at1) = stage.join(2, "n1");
    let (_n2, at2) = stage.join(3, "n2");
    (2..=3).for_each(|machine| stage.echo(machine));
    until("n2 reaches n1", || stage.reaches(3, at1).then_some(()));
    let dir = stage.member("n1");
    let status = format!("mesh status --dir {dir}");
    // Connections of before lead nowhere, and nobody is told so.
    run(&format!("ip -n {place} addr del 10.98.0.2/24 dev wire"));
    let moved = Instant::now();
    run(&format!("ip -n {place} addr add 10.98.0.66/24 dev wire"));
    run(&router);
    until("n2 reaches n1 again", || {
        stage.reaches(3, at1).then_some(())
    });
    let away = moved.elapsed();
    println!("{status}: away for {away:?} {}", stage.ok(2, &status));
    until("n1 reaches n2 again", || {
        stage.reaches(2, at2).then_some(())
    });
    assert!(away < Duration::from_secs(8), "away for {away:?}");
}

#[test]
fn a_machine_joins_and_a_phone_reaches_it_through_the_lighthouse() {
    let Some(stage) = Stage::new("m", 4) else {
        return;
    };
    let _lighthouse = stage.lighthouse();

    // Two machines join and reach each other.
    let (n1, at1) = stage.join(2, "n1");
    let (_n2, at2) = stage.join(3, "n2");
    (2..=4).for_each(|machine| stage.echo(machine));
    until("n2 reaches n1", || stage.reaches(3, at1).then_some(()));
    until("n1 reaches n2", || stage.reaches(2, at2).then_some(()));
    let dir = stage.member("n1");
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&format!("{dir}/state"))), (0o700, 0o600));
    let said = stage.fails(2, &format!("join n1.toml --foreground --dir {dir}"));
    assert!(said.contains("mesh down"), "{said}");

    // A phone, whose only peer is n1, at the lighthouse's port.
    let said = stage.fails(OPERATOR, "client new --wireguard phone");
    assert!(said.contains("n1, n2"), "{said}");
    let made = stage.json(
        OPERATOR,
        "client new --wireguard phone --node n1 --group phones --save phone.conf",
    );
    assert_eq!(made["endpoint"], "10.98.0.1:51820");
    let file = stage.path("phone.conf");
    assert_eq!(mode(file.to_str().unwrap()), 0o600);
    let shown = stage.ok(OPERATOR, "client new --wireguard tablet --node n1 --qr");
    assert!(
        shown.contains("PrivateKey = ") && shown.contains('▀'),
        "{shown}"
    );
    let phone = WireguardGo::start(&stage.wire, PHONE);
    let (configuration, addresses) = for_wg(&std::fs::read_to_string(file).unwrap());
    phone.configure(&configuration);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    stage.wire.address(PHONE, &phone.device, &addresses);
    let place = stage.wire.at(PHONE);
    // As wg-quick does for AllowedIPs.
    let allowed = configuration
        .lines()
        .find_map(|l| l.strip_prefix("AllowedIPs = "));
    for net in allowed.unwrap().split(", ") {
        run(&format!(
            "ip -n {place} route add {net} dev {}",
            phone.device
        ));
    }
    until("the phone reaches n1", || {
        stage.reaches(PHONE, at1).then_some(())
    });
    until("the phone reaches n2, through n1", || {
        stage.reaches(PHONE, at2).then_some(())
    });
    let own: IpAddr = made["address"].as_str().unwrap().parse().unwrap();
    for machine in [2, 3] {
        until("the phone is reached", || {
            stage.reaches(machine, own).then_some(())
        });
    }
    assert!(phone.show("endpoints").trim().ends_with("10.98.0.1:51820"));
    let nodes = stage.json(OPERATOR, "nodes");
    let view = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == "phone");
    assert_eq!(view.unwrap()["client"], true);

    // The first rule closes what it does not open, also behind the node that the phone knows.
    stage.ok(OPERATOR, "policy allow phones n1-s");
    until("the phone reaches n2 no more", || {
        (!stage.reaches(PHONE, at2)).then_some(())
    });
    assert!(stage.reaches(PHONE, at1));
    assert!(!stage.reaches(3, own) && !stage.reaches(3, at1));
    // The phone's node has to be a peer of n2, too, which any rule between them makes it.
    stage.ok(OPERATOR, "policy allow n1-s n2-s --tcp 1");
    stage.ok(OPERATOR, "policy allow phones n2-s");
    until("and again", || stage.reaches(PHONE, at2).then_some(()));

    // Out it goes, before anybody can do much more with it.
    stage.ok(OPERATOR, "evict phone");
    let (evicted, mut last) = (Instant::now(), Duration::ZERO);
    until("the phone reaches nobody", || {
        let (asked, reached) = (evicted.elapsed(), stage.reaches(PHONE, at1));
        last = if reached { asked } else { last };
        (!reached).then_some(())
    });
    println!("evicted, the phone was last answered after {last:?}");
    assert!(last < EVICTED, "{last:?}");
    assert!(!stage.reaches(PHONE, at2));

    // What joined goes without a trace.
    let place = stage.wire.at(2);
    assert!(run(&format!("ip -n {place} rule")).contains("1380"));
    stage.ok(2, &format!("mesh down --dir {dir}"));
    drop(n1);
    let links = run(&format!("ip -n {place} -o link"));
    assert!(!links.contains("hf0"), "{links}");
    for family in ["-4", "-6"] {
        let left = run(&format!("ip {family} -n {place} rule"));
        assert!(!left.contains("1380"), "{left}");
        let left = run(&format!("ip {family} -n {place} route show table all"));
        assert!(!left.contains("hf0"), "{left}");
    }
    let said = stage.fails(2, &format!("mesh status --dir {dir}"));
    assert!(said.contains("mesh up"), "{said}");
    stage.ok(2, &format!("leave --dir {dir}"));
    let said = stage.fails(2, &format!("mesh up --dir {dir}"));
    assert!(said.contains("not joined"), "{said}");
}
