//! A cluster, its lighthouse and seeds on this machine's loopback, as an ordinary user; no node.

mod common;

use common::{Operator, mode};
use std::process::Stdio;

/// As [`Operator::command`] gives it.
const OWN: &str = "correct horse";

#[test]
fn from_nothing_to_a_seed_and_back() {
    let me = Operator::new();
    let (https, made) = me.new_cluster();
    assert_eq!(made["printed_root"].as_array().unwrap().len(), 13);
    assert_eq!(mode(&me.cluster), 0o700);
    for key in ["root", "operator", "release"] {
        assert_eq!(
            mode(&me.cluster.join(format!("keys/{key}.age"))),
            0o600,
            "{key}"
        );
    }
    assert_eq!(mode(&me.cluster.join("lighthouse/keys.toml")), 0o600);
    let (code, said) = me.fails(&format!("cluster new home --dir {}", me.cluster.display()));
    assert!(code == 2 && said.contains("not empty"), "{code} {said}");

    // Nobody there: nothing is made, and the way out is named.
    let (code, said) = me.fails("seed new --role bare --name n1 --out n1.toml");
    assert!(code == 3 && said.contains("--offline"), "{code} {said}");
    assert!(!me.dir.path().join("n1.toml").exists());
    me.ok("seed new --role agent --uses 3 --offline --out shelf.toml");

    let lighthouse = me.lighthouse(https);
    let seed = me.json("seed new --role bare --name n1 --expires 1h --group edge --out n1.toml");
    assert_eq!(seed["pushed"], true);
    assert_eq!(mode(&me.dir.path().join("n1.toml")), 0o600);
    let text = std::fs::read(me.dir.path().join("n1.toml")).unwrap();
    let parsed = holdfast_core::seed::Seed::from_bytes(&text).unwrap();
    assert_eq!(parsed.grant.as_str(), seed["grant"]);
    assert_eq!(parsed.lighthouses[0].https, [format!("10.0.2.2:{https}")]);
    let (code, said) = me.fails("seed new --role bare --name n1 --out n1.toml");
    assert!(code == 2 && said.contains("--force"), "{code} {said}");

    // What cannot be written costs no grant.
    let (code, said) = me.fails("seed new --role bare --name n2 --out nowhere/n2.toml");
    assert!(
        code == 1 && said.contains("nowhere/n2.toml"),
        "{code} {said}"
    );

    assert_eq!(me.json("token push").as_array().unwrap().len(), 1);
    let tokens = me.json("token list");
    let tokens = tokens.as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    assert!(
        tokens
            .iter()
            .all(|t| t["used"] == 0 && t["state"] == "open"),
        "{tokens:?}"
    );
    assert_eq!(me.json("nodes"), serde_json::json!([]));
    let (code, said) = me.fails("status n1");
    assert!(
        code == 1 && said.contains("no node is called n1"),
        "{code} {said}"
    );

    // A revocation outlives a lighthouse that was killed.
    me.ok("token revoke n1");
    drop(lighthouse);
    let (code, _) = me.fails("nodes");
    assert_eq!(code, 3);
    let _lighthouse = me.lighthouse(https);
    let tokens = me.json("token list");
    let states: Vec<_> = tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (&t["name"], &t["state"]))
        .collect();
    assert!(
        states.iter().any(|(n, s)| **n == "n1" && **s == "revoked"),
        "{states:?}"
    );
    assert!(states.iter().any(|(_, s)| **s == "open"), "{states:?}");
    let policy = &me.json("cluster show")["policy"];
    assert!(policy["generation"].as_u64().unwrap() > 1_000_000_000);

    // An operator of another cluster gets nothing, and this one's own passphrase is needed.
    let wrong = me
        .command("nodes")
        .env("HOLDFAST_PASSPHRASE", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(4));
    let stranger = Operator::new();
    stranger.new_cluster();
    let toml = stranger.cluster.join("cluster.toml");
    let theirs = std::fs::read_to_string(&toml).unwrap();
    let api = theirs.lines().find(|l| l.starts_with("api")).unwrap();
    std::fs::write(
        &toml,
        theirs.replace(api, &format!("api = [\"127.0.0.1:{https}\"]")),
    )
    .unwrap();
    let (code, said) = stranger.fails("nodes");
    assert!(code == 4 && said.contains("pinned"), "{code} {said}");
}

#[test]
fn rules_that_two_shells_change_at_once_all_hold() {
    let me = Operator::new();
    let (https, _) = me.new_cluster();
    let _lighthouse = me.lighthouse(https);
    me.ok("policy allow phones web");
    let lines = [
        "policy allow admins servers",
        "policy disallow phones web",
        "policy allow servers servers",
    ];
    let at_once = lines.map(|line| me.command(line).stderr(Stdio::piped()).spawn().unwrap());
    for (line, child) in lines.iter().zip(at_once) {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{line}: {out:?}");
    }
    let shown = me.json("policy show");
    let rules = shown["rules"].as_array().unwrap().iter();
    let mut from: Vec<_> = rules.map(|r| r["from"].as_str().unwrap()).collect();
    from.sort_unstable();
    assert_eq!(from, ["admins", "servers"], "{shown}");
    assert!(shown["generation"].as_u64().unwrap() > 1_000_000_000);

    // What was not signed is not said to hold.
    let me = Operator::new();
    let (https, _) = me.new_cluster();
    let _lighthouse = me.lighthouse(https);
    std::fs::remove_file(me.cluster.join("keys/root.age")).unwrap();
    let (_, said) = me.fails("policy allow phones web");
    assert!(!said.contains("The first rule"), "{said}");
    let (_, said) = me.fails("policy disallow phones web");
    assert!(said.contains("there is no such rule"), "{said}");
}

#[test]
fn the_printed_root_is_as_good_as_the_kept_one() {
    use std::io::Write as _;
    let me = Operator::new();
    let (https, made) = me.new_cluster();
    let groups: Vec<_> = made["printed_root"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g.as_str().unwrap())
        .collect();
    std::fs::remove_file(me.cluster.join("keys/root.age")).unwrap();
    let restore = |typed: &str, passphrase: &str| {
        let mut child = me
            .command("cluster restore-root")
            .env("HOLDFAST_PASSPHRASE", passphrase)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(typed.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let mut wrong = groups.clone();
    wrong.swap(2, 3);
    let out = restore(&wrong.join(" "), OWN);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("group 3"),
        "{out:?}"
    );
    // A passphrase that opens none of the other keys: the root must not get one of its own.
    let out = restore(&groups.join(" "), "another horse");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.code() == Some(4) && said.contains("other keys"),
        "{said}"
    );
    assert!(!me.cluster.join("keys/root.age").exists());
    let typed = groups.join("\n").to_lowercase();
    assert!(restore(&typed, OWN).status.success());

    let _lighthouse = me.lighthouse(https);
    me.ok("seed new --role bare --name n1 --out n1.toml");
    me.ok("token revoke n1");
    assert_eq!(me.json("token list")[0]["state"], "revoked");
}
