//! What an operator does with a node, through a real lighthouse and its splice; the node is played
//! by this test.

mod common;
#[path = "common/node.rs"]
mod node;

use common::{Operator, Running, install};
use node::{Node, Trial};

struct Stage {
    me: Operator,
    node: Node,
    _lighthouse: Running,
    _runtime: tokio::runtime::Runtime,
}

fn stage() -> Stage {
    let me = Operator::new();
    let (https, _) = me.new_cluster();
    let lighthouse = me.lighthouse(https);
    me.ok("seed new --role server --name n1 --out n1.toml");
    let bytes = std::fs::read(me.dir.path().join("n1.toml")).unwrap();
    let seed = holdfast_core::seed::Seed::from_bytes(&bytes).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let node = runtime.block_on(Node::join(&seed, format!("127.0.0.1:{https}")));
    Stage {
        me,
        node,
        _lighthouse: lighthouse,
        _runtime: runtime,
    }
}

#[test]
fn an_operator_keeps_a_node_from_afar() {
    let Stage { me, node, .. } = &stage();
    let nodes = me.json("nodes");
    let n1 = &nodes[0];
    assert_eq!(
        (&n1["name"], &n1["role"], &n1["slot"], &n1["k3s"]),
        (&"n1".into(), &"server".into(), &"a".into(), &"ready".into())
    );
    assert!(
        n1["mesh_address"].as_str().unwrap().starts_with("100."),
        "{n1}"
    );
    assert_eq!(
        (&n1["problem"], &n1["on_trial"]),
        (&serde_json::Value::Null, &false.into())
    );
    assert!(me.ok("nodes").contains("first start"));
    assert_eq!(me.json("token list")[0]["used"], 1);

    assert_eq!(me.json("status n1")["boot_id"], "0000");
    assert_eq!(me.json("history n1")[0]["event"], "join");
    let logs = me.ok("logs n1 -n 3 --unit k3s");
    assert_eq!(
        logs.lines().last(),
        Some("1970-01-01 00:00:01Z info  k3s: line 2")
    );
    assert_eq!(me.ok("logs n1 -n 2 --output json").lines().count(), 2);
    let (code, said) = me.fails("restart-agent n1");
    assert!(
        code == 1 && said.contains("busy with an upgrade"),
        "{code} {said}"
    );

    assert_ne!(me.json("reboot n1 --wait")["boot_id"], "0000");

    // Nothing that a node would refuse is sent to it.
    let bundle = me.dir.path().join("b.bundle");
    std::fs::write(&bundle, "no bundle at all").unwrap();
    let (code, said) = me.fails("upgrade n1 b.bundle --wait");
    assert!(
        code == 4 && said.contains("not a Holdfast bundle"),
        "{code} {said}"
    );
    assert!(node.upgraded().is_empty());

    let view = me.json("upgrade n1 b.bundle --wait --unchecked");
    assert_eq!(
        (&view["slot"], &view["version"]),
        (&"b".into(), &"1.1.0".into())
    );
    assert_eq!(node.upgraded().len(), 1);
    node.next_trial(Trial::GoesBack);
    let (code, said) = me.fails("upgrade n1 b.bundle --wait --unchecked");
    assert!(
        code == 5 && said.contains("no mesh handshake"),
        "{code} {said}"
    );
    node.next_trial(Trial::Commits);
    assert_eq!(me.json("rollback n1 --wait")["slot"], "a");

    me.ok("evict n1");
    assert_eq!(me.json("nodes"), serde_json::json!([]));
}

#[test]
fn kubectl_goes_through_the_splice_and_its_exit_code_comes_back() {
    let Stage { me, .. } = &stage();
    let kubectl = me.dir.path().join("kubectl");
    let script = "#!/bin/bash
port=$(sed -n 's/.*server: https:..127.0.0.1:\\([0-9]*\\)$/\\1/p' \"$KUBECONFIG\")
exec 3<>\"/dev/tcp/127.0.0.1/$port\"
echo \"asked: $* ${HOLDFAST_PASSPHRASE-without}\" >&3
read -r line <&3
echo \"$line\"
exit 7
";
    let written = me.dir.path().join("script");
    std::fs::write(&written, script).unwrap();
    install(&written, &kubectl);
    for line in [
        "kubectl get nodes -o wide",
        "kubectl --node n1 -- get nodes -o wide",
    ] {
        let out = me
            .command(line)
            .env("HOLDFAST_KUBECTL", &kubectl)
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(7), "{out:?}");
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            "asked: get nodes -o wide without\n",
            "{out:?}"
        );
    }

    // Asked to end, it leaves no configuration behind.
    let told = me.dir.path().join("told");
    let script = format!(
        "#!/bin/bash\necho \"$KUBECONFIG\" > {0}.new\nmv {0}.new {0}\nexec sleep 600\n",
        told.display()
    );
    std::fs::write(&written, script).unwrap();
    install(&written, &kubectl);
    let mut running = me
        .command("kubectl get nodes -w")
        .env("HOLDFAST_KUBECTL", &kubectl)
        .spawn()
        .unwrap();
    while !told.exists() {
        assert!(running.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let config = std::fs::read_to_string(&told).unwrap();
    assert!(std::path::Path::new(config.trim()).exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(running.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    running.wait().unwrap();
    assert!(!std::path::Path::new(config.trim()).exists(), "{config}");

    assert!(me.ok("kubeconfig").contains("https://127.0.0.1:6443"));
    let (code, said) = me.fails("kubectl --kubectl /nowhere/kubectl get nodes");
    assert!(
        code == 1 && said.contains("/nowhere/kubectl"),
        "{code} {said}"
    );
}
