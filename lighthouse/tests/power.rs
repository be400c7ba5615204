//! kill -9, damaged files, taken ports.

mod common;

use common::Lab;
use common::testing::*;
use holdfast_lighthouse::store::{Embedded, Store as _, StoreError};
use holdfast_lighthouse::{Lighthouse, LighthouseError};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const CHILD: &str = "HOLDFAST_TEST_STORE";
const ROUNDS: u32 = 60;

/// Not a test by itself: what [`every_acknowledged_write_survives_kill_9`] runs and kills.
#[tokio::test]
async fn writer() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let store = Embedded::open(Path::new(&path)).await.unwrap();
    let start = store.list("k").await.unwrap().len();
    for n in start.. {
        // New keys, and one that changes all the time.
        store
            .cas(&format!("k{n:06}"), None, Some(vec![n as u8; 600]))
            .await
            .unwrap();
        let old = store.get("counter").await.unwrap();
        let version = old.map(|v| v.version);
        store
            .cas("counter", version, Some(n.to_string().into_bytes()))
            .await
            .unwrap();
        println!("ack {n}");
    }
}

#[tokio::test]
async fn every_acknowledged_write_survives_kill_9() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("store");
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let number = |line: String| {
            line.strip_prefix("ack ")
                .and_then(|n| n.parse::<usize>().ok())
        };
        // At another point each time; in the middle of a write more often than not.
        let wanted = 3 + (round * 7 % 23) as usize;
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            if let Some(n) = number(line) {
                acknowledged.insert(n, round);
                seen += 1;
                if seen == wanted {
                    child.kill().unwrap();
                }
            }
        }
        assert!(
            seen >= wanted,
            "the writer ended by itself in round {round}"
        );
        child.wait().unwrap();
        let store = Embedded::open(&path).await.unwrap();
        for n in acknowledged.keys() {
            let value = store.get(&format!("k{n:06}")).await.unwrap();
            assert_eq!(value.unwrap().value, vec![*n as u8; 600]);
        }
        let counter = store.get("counter").await.unwrap().unwrap().value;
        let counter: usize = String::from_utf8(counter).unwrap().parse().unwrap();
        assert!(counter >= *acknowledged.keys().last().unwrap());
    }
}

const FULL: &str = "HOLDFAST_TEST_FULL";

/// Not a test by itself: what [`a_full_disk_loses_nothing_that_was_acknowledged`] runs with a
/// bound on the size of files.
#[tokio::test]
async fn filler() {
    let Ok(path) = std::env::var(FULL) else {
        return;
    };
    let store = Embedded::open(Path::new(&path)).await.unwrap();
    let mut written = 0;
    let error = loop {
        match store
            .cas(&format!("k{written:06}"), None, Some(vec![1; 100_000]))
            .await
        {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(written > 3, "only {written}");
    // It goes on reading, and writes again once there is room.
    assert_eq!(store.list("k").await.unwrap().len(), written);
    for n in 0..written {
        let key = format!("k{n:06}");
        let version = store.get(&key).await.unwrap().unwrap().version;
        store.cas(&key, Some(version), None).await.unwrap();
    }
    store.cas("k", None, Some(vec![1; 100_000])).await.unwrap();
    println!("filled");
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let tmp = tempfile::tempdir().unwrap();
    // 4 MiB, in blocks of 1024 bytes as bash counts them; a write beyond fails instead of killing.
    let script = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" --exact filler --nocapture";
    let done = Command::new("bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(FULL, tmp.path().join("store"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        said.contains("filled"),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

async fn refusal(lab: &Lab) -> LighthouseError {
    Lighthouse::start(lab.config())
        .await
        .expect_err("it should not have started")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_starting_is_said() {
    let mut lab = Lab::stopped();
    lab.start().await;
    let second = refusal(&lab).await;
    assert!(
        matches!(second, LighthouseError::Store(StoreError::InUse(_))),
        "{second}"
    );
    let (tcp, udp) = (lab.running().https[0], lab.running().udp);
    let mut other = Lab::stopped();
    let mut config = other.config();
    config.https = vec![tcp];
    let taken = Lighthouse::start(config).await.err().unwrap().to_string();
    assert!(
        taken.contains(&tcp.to_string()) && taken.contains("another program"),
        "{taken}"
    );
    let mut config = other.config();
    config.udp = Some(([127, 0, 0, 1], udp).into());
    let taken = Lighthouse::start(config).await.err().unwrap().to_string();
    assert!(
        taken.contains("UDP") && taken.contains(&udp.to_string()),
        "{taken}"
    );

    other.start().await;
    other.stop().await;
    std::fs::write(other.dir().join("store.redb"), [7; 9000]).unwrap();
    let damaged = refusal(&other).await.to_string();
    assert!(
        damaged.contains("store.redb") && damaged.contains("backup"),
        "{damaged}"
    );
    std::fs::remove_file(other.dir().join("store.redb")).unwrap();

    let documents = other.dir().join("documents.json");
    std::fs::write(&documents, "{").unwrap();
    let broken = refusal(&other).await.to_string();
    assert!(broken.contains("documents.json"), "{broken}");
    // The documents of a cluster whose lighthouses are others.
    let set = set(&policy(1), &identity());
    std::fs::write(&documents, serde_json::to_vec(&set).unwrap()).unwrap();
    let foreign = refusal(&other).await.to_string();
    assert!(
        foreign.contains("does not name this lighthouse"),
        "{foreign}"
    );
    std::fs::remove_file(other.dir().join("keys.toml")).unwrap();
    let none = refusal(&other).await.to_string();
    assert!(none.contains("cluster new"), "{none}");
}
