//! A cluster with two lighthouses on machines of their own (namespaces), of which one is lost with
//! all that it had. Needs root. Everything is removed at the end.

#[path = "common/stage.rs"]
mod stage;

use holdfast_testnet::until;
use serde_json::Value;
use stage::*;
use std::net::IpAddr;

/// Machines of lighthouses beside the first.
const B: usize = 4;
const C: usize = 6;

fn lighthouses(stage: &Stage) -> Vec<(String, bool, u64)> {
    let listed = stage.json(OPERATOR, "lighthouse list");
    let all = listed.as_array().unwrap().iter();
    all.map(|l| {
        let name = l["name"].as_str().unwrap().to_owned();
        let known = l["members"].as_u64().unwrap_or(0);
        (name, l["answers"] == true, known)
    })
    .collect()
}

fn until_known(stage: &Stage, wanted: &[(&str, bool, u64)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(name, answers, members)| ((*name).to_owned(), *answers, *members))
        .collect();
    until(&format!("lighthouses are {wanted:?}"), || {
        (lighthouses(stage) == wanted).then_some(())
    });
}

/// The lighthouses with which `name` on machine `n` has a session.
fn sessions(stage: &Stage, n: usize, name: &str) -> Vec<String> {
    let line = format!("mesh status --dir {}", stage.member(name));
    let peers = stage.json(n, &line);
    let all = peers.as_array().unwrap().iter();
    let alive = all.filter(|p| p["handshake_age"].is_u64());
    let names = alive.map(|p| p["name"].as_str().unwrap_or_default().to_owned());
    names.filter(|n| !n.starts_with('n')).collect()
}

fn add(stage: &Stage, name: &str, machine: usize) -> Running {
    stage.ok(
        OPERATOR,
        &format!("lighthouse add {name} --lighthouse 10.98.0.{machine}:8443"),
    );
    stage.lighthouse_in(&format!("lighthouses/{name}"), machine)
}

fn reach(stage: &Stage, from: usize, to: IpAddr, what: &str) {
    until(what, || stage.reaches(from, to).then_some(()));
}

#[test]
fn members_go_on_when_one_of_two_is_lost_and_another_takes_its_place() {
    let Some(stage) = Stage::new("l", 6) else {
        return;
    };
    let first = stage.lighthouse();
    // No UDP leaves this machine: it is reached through lighthouses alone.
    stage.wire.without_udp(2);
    let (n1, at1) = stage.join(2, "n1");
    let b = add(&stage, "b", B);
    // It joined before there was the second.
    until_known(&stage, &[("lighthouse-1", true, 1), ("b", true, 1)]);
    let (_n2, at2) = stage.join(3, "n2");
    until_known(&stage, &[("lighthouse-1", true, 2), ("b", true, 2)]);
    [2, 3, 5]
        .into_iter()
        .for_each(|machine| stage.echo(machine));
    reach(&stage, 2, at2, "n1 reaches n2");
    reach(&stage, 3, at1, "n2 reaches n1");
    for (n, name) in [(2, "n1"), (3, "n2")] {
        until(&format!("{name} has a session with both"), || {
            (sessions(&stage, n, name).len() == 2).then_some(())
        });
    }

    // Lost with its machine.
    drop(first);
    std::fs::remove_dir_all(stage.path("home/lighthouse")).unwrap();
    reach(&stage, 2, at2, "n1 reaches n2 through the other");
    reach(&stage, 3, at1, "n2 reaches n1 through the other");
    let nodes = stage.json(OPERATOR, "nodes");
    assert_eq!(nodes.as_array().unwrap().len(), 2, "{nodes}");
    let made = stage.command(OPERATOR, "seed new --role bare --name n3 --out n3.toml");
    let said = { made }.output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("lighthouse-1 has not got"), "{said}");
    let (_n3, at3) = stage.join_with(5, "n3");
    reach(&stage, 5, at1, "n3 reaches n1");
    reach(&stage, 2, at3, "n1 reaches n3");
    reach(&stage, 3, at3, "n2 reaches n3");

    // Another in its place.
    let said = stage.fails(OPERATOR, "lighthouse add b --lighthouse 10.98.0.6:8443");
    assert!(said.contains("already"), "{said}");
    let done: Value = stage.json(OPERATOR, "lighthouse remove lighthouse-1");
    assert!(done["kept"].is_null(), "{done}");
    let said = stage.fails(OPERATOR, "lighthouse remove b");
    assert!(said.contains("last lighthouse"), "{said}");
    let _c = {
        stage.ok(
            OPERATOR,
            "lighthouse add c --lighthouse 10.98.0.6 --https-port 8443",
        );
        stage.lighthouse_at(C)
    };
    until_known(&stage, &[("b", true, 3), ("c", true, 3)]);
    for (n, name) in [(2, "n1"), (3, "n2"), (5, "n3")] {
        until(&format!("{name} has a session with b and c"), || {
            (sessions(&stage, n, name).len() == 2).then_some(())
        });
    }

    // The new one does for all.
    drop(b);
    reach(&stage, 3, at1, "n2 reaches n1 through the new one");
    stage.ok(OPERATOR, "evict n3");
    until("n3 is out", || (!stage.reaches(3, at3)).then_some(()));
    reach(&stage, 3, at1, "n2 still reaches n1");
    drop(n1);
}
