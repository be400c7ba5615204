//! Two machines on one LAN keep to the policy: what no rule allows is not answered, what one allows
//! is, at once and again. Then the lighthouse goes down with an eviction of which one of them has
//! not heard; both are booted anew, find each other where they last answered, and the one hears of
//! it from the other.

use anyhow::{Context as _, ensure};
use holdfast_core::api::ApiErrorKind;
use holdfast_core::cluster::MESH_PORT;
use holdfast_qemu::{Lan, Switch, free_tcp_port};
use holdfast_tests::{Attempt, Holdfast, Lab, Node, ProbeMember, Story, until, until_some};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const DNS: u16 = 53;
/// Nothing listens there: who is let through is refused by the kernel.
const WEB: u16 = 80;
/// A change of the policy is in force within this time, on two busy cores.
const SOON: Duration = Duration::from_secs(30);
/// WireGuard asks for a new session after 15 s of silence, and members without a lighthouse call
/// each other every 30 s.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one connection is tried; retries of the first packet come after 1 s and 3 s.
const TRY: Duration = Duration::from_secs(4);

fn ping(holdfast: &Holdfast, from: &str, to: &str) -> Result<Value, String> {
    let ping = holdfast.json(&["mesh", "ping", from, to, "--count", "1"]);
    ping.map_err(|e| format!("{e:#}"))
}

/// Waits until connections end in this way; one that was answered before has to stay so.
fn ends(
    who: &ProbeMember,
    at: (IpAddr, u16),
    wanted: Attempt,
    limit: Duration,
) -> anyhow::Result<()> {
    let what = format!("port {} of {}: {wanted:?}", at.1, at.0);
    until_some(&what, limit, || match who.tries(at.0, at.1, TRY) {
        Ok(found) if found == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn the_policy_is_kept_and_an_eviction_passed_on() -> Story {
    let mut lab = Lab::new("policy_is_kept")?;
    let image = lab.build("base", "1.0.0")?;
    let switch = Switch::new()?;
    let _lan = Lan::new(&switch, [192, 168, 77])?;
    let (mut nodes, mut places) = (vec![], vec![]);
    for (name, group) in [("n1", "left"), ("n2", "right")] {
        let seed = lab.seed(name, "bare", &["--group", group])?;
        let port = free_tcp_port()?;
        let mut node = Node::with(&lab, name, &image, Some(&seed), |spec| {
            spec.forward_udp(port, MESH_PORT).link(&switch)
        })?;
        node.machine.power_on()?;
        nodes.push(node);
        places.push((name, SocketAddr::from(([127, 0, 0, 1], port))));
    }
    let mut at = vec![];
    for node in &mut nodes {
        node.wait_for("holdfast: mesh up")?;
        let address = node.wait_online()?.text("mesh_address").to_owned();
        at.push(address.parse::<IpAddr>().context("mesh address")?);
    }
    let [n1, n2] = [at[0], at[1]];
    let third_seed = lab.seed("third", "bare", &["--group", "ops"])?;
    let third = ProbeMember::join(&third_seed, &places)?;

    // Without rules everybody reaches everybody.
    let holdfast = lab.holdfast.clone();
    let direct = until_some("n1 reaches n2 on their LAN", PATIENCE, || {
        match ping(&holdfast, "n1", "n2")? {
            p if p["path"]["kind"] == "direct" => Ok(p),
            p => Err(p.to_string()),
        }
    })?;
    let lan = direct["path"]["endpoint"].as_str().unwrap_or_default();
    ensure!(lan.starts_with("192.168.77."), "{direct}");
    for node in [n1, n2] {
        ends(&third, (node, DNS), Attempt::Accepted, SOON)?;
    }

    // One rule closes all the rest: between the nodes, and other ports of the same node.
    holdfast.run(["policy", "allow", "ops", "left", "--tcp", "80"])?;
    ends(&third, (n1, DNS), Attempt::Silence, SOON)?;
    ends(&third, (n1, WEB), Attempt::Refused, SOON)?;
    ends(&third, (n2, DNS), Attempt::Silence, SOON)?;
    ends(&third, (n2, WEB), Attempt::Silence, SOON)?;
    let said = until_some("n1 may not reach n2", SOON, || {
        match ping(&holdfast, "n1", "n2") {
            Err(said) if said.contains("no member") => Ok(said),
            other => Err(format!("{other:?}")),
        }
    })?;
    println!("{said}");

    // Another port, and the nodes themselves; in one direction for the third.
    holdfast.run(["policy", "allow", "ops", "left", "--tcp", "53"])?;
    holdfast.run(["policy", "allow", "left", "right"])?;
    ends(&third, (n1, DNS), Attempt::Accepted, SOON)?;
    ends(&third, (n2, DNS), Attempt::Silence, SOON)?;
    until_some("n1 reaches n2 again", SOON, || ping(&holdfast, "n1", "n2"))?;
    let shown = holdfast.json(&["policy", "show"])?;
    ensure!(
        shown["rules"].as_array().map(Vec::len) == Some(3),
        "{shown}"
    );

    // Taken back.
    holdfast.run(["policy", "disallow", "ops", "left", "--tcp", "53"])?;
    ends(&third, (n1, DNS), Attempt::Silence, SOON)?;
    ends(&third, (n1, WEB), Attempt::Refused, SOON)?;
    holdfast.run(["policy", "disallow", "left", "right"])?;
    holdfast.run(["policy", "disallow", "ops", "left"])?;
    for node in [n1, n2] {
        ends(&third, (node, DNS), Attempt::Accepted, PATIENCE)?;
    }
    ping(&holdfast, "n1", "n2").or_else(|_| {
        until_some("n1 reaches n2 once more", SOON, || {
            ping(&holdfast, "n1", "n2")
        })
    })?;

    // Each knows where the other answers, also after a power cut.
    for (name, other) in [("n1", "192.168.77."), ("n2", "192.168.77.")] {
        until(
            &format!("{name} has kept where the other answers"),
            PATIENCE,
            || {
                let said = holdfast.run(["logs", name, "--lines", "1000"]);
                let kept = said.unwrap_or_default();
                let mut kept = kept.lines().filter(|l| l.contains("kept where peers"));
                kept.any(|l| l.contains(other))
            },
        )?;
    }

    // n2 is off while the third is evicted, and the lighthouse is gone when it is back.
    nodes[1].power_cut()?;
    holdfast.run(["evict", "third"])?;
    ends(&third, (n1, DNS), Attempt::Silence, SOON)?;
    lab.kill_lighthouse()?;
    nodes[0].power_cut()?;
    nodes[1].start()?;
    ends(&third, (n2, DNS), Attempt::Accepted, PATIENCE)?;
    // Alone it has nobody to hear it from; n1 has it on its disk.
    nodes[0].start()?;
    ends(&third, (n2, DNS), Attempt::Silence, PATIENCE)?;
    ensure!(third.tries(n1, DNS, TRY)? == Attempt::Silence, "n1 forgot");

    // Both are there for their operator, and for each other; the third is not let in again.
    lab.start_lighthouse()?;
    for node in &mut nodes {
        node.wait_online()?;
    }
    let met = holdfast.json(&["mesh", "status", "n2"])?;
    ensure!(
        met.to_string().contains("192.168.77.") && !met.to_string().contains("\"third\""),
        "{met}"
    );
    ensure!(third.refused_again(&third_seed)? == ApiErrorKind::Evicted);
    ensure!(third.tries(n2, DNS, TRY)? == Attempt::Silence);

    // Nor is a node, with all that is on its disk.
    holdfast.run(["evict", "n2"])?;
    nodes[1].power_cut()?;
    let log = lab.dir().join("lighthouse.log");
    let before = std::fs::read_to_string(&log)?.len();
    nodes[1].start()?;
    until("n2 tries, and stays out", PATIENCE, || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log[before..].contains("n2 is evicted")
    })?;
    ensure!(ping(&holdfast, "n1", "n2").is_err());
    ensure!(nodes[1].view()?.is_none());
    for node in &mut nodes {
        node.power_cut()?;
    }
    Ok(())
}
