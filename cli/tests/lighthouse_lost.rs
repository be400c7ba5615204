//! A cluster's directory lost and imported, a lighthouse lost and restored, and one moved; on
//! loopback, as an ordinary user. That nodes find the next one: `lighthouse/tests/lost.rs`.

mod common;

use common::{Operator, free_tcp, free_udp, mode};
use serde_json::Value;
use std::path::Path;

/// The lighthouse's entry in the documents.
fn entry(me: &Operator) -> (Value, u64) {
    let shown = me.json("cluster show");
    let list = &shown["lighthouses"];
    (
        list["lighthouses"][0].clone(),
        list["generation"].as_u64().unwrap(),
    )
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn a_directory_comes_back_from_its_backup_and_nothing_is_written_over() {
    let me = Operator::new();
    me.new_cluster();
    me.ok("seed new --role bare --name n1 --offline --out n1.toml");
    std::fs::write(me.cluster.join("notes.txt"), "not the cluster's").unwrap();
    let done = me.json("cluster export home.backup");
    assert_eq!(done["cluster"], "home");
    let backup = me.dir.path().join("home.backup");
    assert_eq!(mode(&backup), 0o600);
    // Neither the lighthouse's key nor a name of a file can be read in it.
    let bytes = read(&backup);
    let keys = std::fs::read_to_string(me.cluster.join("lighthouse/keys.toml")).unwrap();
    let key = keys.lines().find(|l| l.starts_with("tls")).unwrap();
    for secret in [key.trim_start_matches("tls = "), "keys.toml"] {
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "{secret}");
    }
    let (code, said) = me.fails("cluster export home.backup");
    assert!(code == 2 && said.contains("--force"), "{code} {said}");

    let (code, said) = me.fails(&format!(
        "cluster import home.backup --dir {}",
        me.cluster.display()
    ));
    assert!(code == 2 && said.contains("exists"), "{code} {said}");
    let wrong = me
        .command("cluster import home.backup --dir again")
        .env("HOLDFAST_PASSPHRASE", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(4), "{wrong:?}");
    let mut cut = bytes.clone();
    let middle = cut.len() / 2;
    cut[middle] ^= 1;
    std::fs::write(me.dir.path().join("cut.backup"), &cut).unwrap();
    me.fails("cluster import cut.backup --dir again");
    let again = me.dir.path().join("again");
    assert!(!again.exists());

    me.ok("cluster import home.backup --dir again");
    assert_eq!(mode(&again), 0o700);
    for file in [
        "cluster.toml",
        "keys/root.age",
        "keys/operator.age",
        "documents.json",
        "counters.json",
        "lighthouse/keys.toml",
        "lighthouse/config.toml",
    ] {
        assert_eq!(
            read(&again.join(file)),
            read(&me.cluster.join(file)),
            "{file}"
        );
    }
    assert_eq!(mode(&again.join("lighthouse/keys.toml")), 0o600);
    assert_eq!(std::fs::read_dir(again.join("grants")).unwrap().count(), 1);
    assert!(!again.join("notes.txt").exists());
    // It works: the same cluster, its key opens.
    let shown = me.json("--cluster again cluster show");
    assert_eq!(shown["id"], me.json("cluster show")["id"]);
}

#[test]
fn a_restored_lighthouse_has_new_keys_under_the_old_name() {
    let me = Operator::new();
    let (https, _) = me.new_cluster();
    let first = me.lighthouse(https);
    me.ok("seed new --role bare --name n1 --out n1.toml");
    let (before, generation) = entry(&me);
    drop(first);
    std::fs::remove_dir_all(me.cluster.join("lighthouse")).unwrap();

    let (code, said) = me.fails("lighthouse restore --host elsewhere.example");
    assert!(code == 2 && said.contains("--unknown-address"), "{said}");
    assert!(!me.cluster.join("lighthouse").exists());
    let (code, _) = me.fails("lighthouse restore --name other");
    assert_eq!(code, 2);
    let done = me.json("lighthouse restore --listen 127.0.0.1 --refill 2h");
    let (after, newer) = entry(&me);
    // Whatever nodes hold by now: this directory may be an old backup.
    assert!(newer > generation + 1_000_000_000, "{newer}");
    assert_eq!(done["lighthouses"], newer);
    assert_eq!(
        (&after["https"], &after["index"]),
        (&before["https"], &before["index"])
    );
    assert_ne!(after["key"], before["key"]);
    assert_ne!(after["mesh_key"], before["mesh_key"]);
    assert_eq!(mode(&me.cluster.join("lighthouse/keys.toml")), 0o600);

    // It runs, and this machine goes on with it.
    let _second = me.lighthouse(https);
    assert_eq!(me.json("token list"), serde_json::json!([]));
    // The seed that nobody used before goes on working.
    assert_eq!(me.json("token push").as_array().unwrap().len(), 0);
    assert_eq!(me.json("token push --again").as_array().unwrap().len(), 1);
    assert_eq!(me.json("token list")[0]["name"], "n1");
    let seed = me.json("seed new --role bare --name n2 --out n2.toml");
    assert_eq!(seed["pushed"], true);
    let text = read(&me.dir.path().join("n2.toml"));
    let parsed = holdfast_core::seed::Seed::from_bytes(&text).unwrap();
    assert_eq!(serde_json::json!(parsed.lighthouses[0].key), after["key"]);
}

#[test]
fn a_lighthouse_moves_and_the_old_one_hands_the_news_on() {
    let me = Operator::new();
    let (https, _) = me.new_cluster();
    let (code, said) = me.fails("lighthouse move --host 127.0.0.1");
    assert!(
        code == 3 && said.contains("lighthouse restore"),
        "{code} {said}"
    );
    let old_dir = me.dir.path().join("old");
    std::fs::rename(me.cluster.join("lighthouse"), &old_dir).unwrap();
    let old = me.lighthouse_in(&old_dir, https);
    me.ok("seed new --role bare --name n1 --out n1.toml");
    let (before, _) = entry(&me);

    let (https2, udp2) = (free_tcp(), free_udp());
    let done = me.json(&format!(
        "lighthouse move --host 127.0.0.1 --https-port {https2} --udp-port {udp2} --listen 127.0.0.1"
    ));
    assert_eq!(done["https"][0], format!("127.0.0.1:{https2}"));
    let (after, _) = entry(&me);
    assert_ne!(after["key"], before["key"]);
    drop(old);

    let _new = me.lighthouse(https2);
    assert_eq!(me.json("token list"), serde_json::json!([]));
    assert_eq!(me.json("token push").as_array().unwrap().len(), 1);
    assert_eq!(me.json("token list")[0]["name"], "n1");
}
