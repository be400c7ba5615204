//! Several lighthouses, as the operator makes and uses them; on loopback, as an ordinary user. That
//! members go on when one is lost: `two_lighthouses.rs`.

mod common;
#[path = "common/node.rs"]
mod node;

use common::{Operator, free_tcp, free_udp, mode};
use holdfast_core::seed::Seed;
use node::{Node, Trial};

fn seed(me: &Operator, file: &str) -> Seed {
    let bytes = std::fs::read(me.dir.path().join(file)).unwrap();
    Seed::from_bytes(&bytes).unwrap()
}

#[test]
fn a_second_one_does_what_the_first_cannot() {
    let me = Operator::new();
    let (https, _) = me.new_cluster();
    let _one = me.lighthouse(https);
    let (port, udp) = (free_tcp(), free_udp());
    let done = me.json(&format!(
        "lighthouse add two --lighthouse 127.0.0.1:{port} --udp-port {udp} --listen 127.0.0.1"
    ));
    assert_eq!(done["index"], 2);
    let dir = me.cluster.join("lighthouses/two");
    assert_eq!(done["dir"].as_str(), dir.to_str());
    assert_eq!(mode(&dir.join("keys.toml")), 0o600);
    let list = me.json("lighthouse list");
    assert_eq!(
        (&list[0]["answers"], &list[1]["answers"]),
        (&true.into(), &false.into())
    );
    assert_eq!(list[0]["holds"], done["lighthouses"]);

    // What it misses is told, and can be made up for.
    let out = me.run("seed new --role bare --name n0 --out n0.toml");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && said.contains("two has not got grant"),
        "{said}"
    );
    let _two = me.lighthouse_in(&dir, port);
    let out = me.run("token push --again");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");

    // A node that only the second reaches.
    me.ok("seed new --role bare --name n1 --out n1.toml");
    let mut seed = seed(&me, "n1.toml");
    assert_eq!(seed.lighthouses.len(), 2);
    seed.lighthouses.remove(0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let node = runtime.block_on(Node::join(&seed, format!("127.0.0.1:{port}")));
    let nodes = me.json("nodes");
    assert_eq!(
        (&nodes[0]["name"], &nodes[0]["standing"]),
        (&"n1".into(), &true.into())
    );
    assert_eq!(me.json("status n1")["boot_id"], "0000");
    let list = me.json("token list");
    let used = list.as_array().unwrap().iter().find(|g| g["name"] == "n1");
    assert_eq!(used.unwrap()["used"], 1);
    std::fs::write(me.dir.path().join("b.bundle"), "no bundle at all").unwrap();
    node.next_trial(Trial::Commits);
    me.ok("upgrade n1 b.bundle --wait --unchecked");
    assert_eq!(node.upgraded().len(), 1);
    assert!(dir.join("blobs").read_dir().unwrap().next().is_some());
    me.ok("evict n1");
    assert_eq!(me.json("nodes"), serde_json::json!([]));

    // A backup has both.
    me.ok("cluster export home.backup");
    me.ok("cluster import home.backup --dir again");
    let keys = |cluster: &str| {
        let path = me
            .dir
            .path()
            .join(cluster)
            .join("lighthouses/two/keys.toml");
        std::fs::read(path).unwrap()
    };
    assert_eq!(keys("again"), keys("home"));
}

#[test]
fn only_the_root_adds_and_removes_and_one_stays() {
    let me = Operator::new();
    let (https, _) = me.new_cluster();
    let _one = me.lighthouse(https);
    let (code, said) = me.fails("lighthouse remove lighthouse-1");
    assert!(
        code == 2 && said.contains("last lighthouse"),
        "{code} {said}"
    );
    let line = "lighthouse add two --lighthouse 127.0.0.1:1";
    let wrong = me
        .command(line)
        .env("HOLDFAST_PASSPHRASE", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(4), "{wrong:?}");
    let root = me.cluster.join("keys/root.age");
    let kept = me.dir.path().join("kept");
    std::fs::rename(&root, &kept).unwrap();
    let (_, said) = me.fails(line);
    assert!(said.contains("restore-root"), "{said}");
    assert!(!me.cluster.join("lighthouses/two").exists());
    std::fs::rename(&kept, &root).unwrap();

    me.ok(line);
    let (code, said) = me.fails(line);
    assert!(code == 2 && said.contains("restore --name two"), "{said}");
    let (code, said) = me.fails("lighthouse remove three");
    assert!(code == 2 && said.contains("lighthouse list"), "{said}");
    // The first goes, and another gets its place; this machine's own way to it is gone with it.
    let done = me.json("lighthouse remove lighthouse-1");
    let kept = done["kept"].as_str().unwrap().to_owned();
    assert!(kept.contains("home/lighthouse.") && !me.cluster.join("lighthouse").exists());
    let text = std::fs::read_to_string(me.cluster.join("cluster.toml")).unwrap();
    assert!(!text.contains("127.0.0.1"), "{text}");
    let (port, udp) = (free_tcp(), free_udp());
    let done = me.json(&format!(
        "lighthouse add three --lighthouse 10.0.2.2:{port} --reach 127.0.0.1:{port} --udp-port {udp} --listen 127.0.0.1"
    ));
    assert_eq!(done["index"], 1);
    let _three = me.lighthouse(port);
    let list = me.json("lighthouse list");
    assert_eq!(
        (&list[1]["name"], &list[1]["answers"]),
        (&"three".into(), &true.into())
    );
    assert_eq!(list[1]["holds"], done["lighthouses"]);
}
