//! Two lighthouses, of which the first is in the wrong hands: whatever it says, the operator's
//! commands do their work through the other, say which one is at fault, and are rid of it. On
//! loopback, as an ordinary user; the node is played by this test.

mod common;
#[path = "common/liar.rs"]
mod liar;
#[path = "common/node.rs"]
mod node;

use common::{Operator, Running, free_tcp, free_udp};
use holdfast_core::seed::Seed;
use liar::{Asked, Lie, play};
use node::{Node, Trial};
use serde_json::Value;

/// The one that lies, first in the document.
const LIAR: &str = "lighthouse-1";

struct Stage {
    me: Operator,
    node: Node,
    asked: Asked,
    honest: Running,
    _runtime: tokio::runtime::Runtime,
}

/// A cluster with the liar and an honest one, and `n1` which joined there.
fn stage(lie: Lie) -> Stage {
    let me = Operator::new();
    let (https, _) = me.new_cluster();
    me.ok("cluster new other --dir other --lighthouse 10.0.2.2");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let foreign = me.dir.path().join("other");
    let asked = runtime.block_on(play(lie, &me.cluster, https, &foreign));
    let (port, udp) = (free_tcp(), free_udp());
    me.ok(&format!(
        "lighthouse add two --lighthouse 127.0.0.1:{port} --udp-port {udp} --listen 127.0.0.1"
    ));
    let honest = me.lighthouse_in(&me.cluster.join("lighthouses/two"), port);
    me.ok("seed new --role server --name n1 --out n1.toml");
    let bytes = std::fs::read(me.dir.path().join("n1.toml")).unwrap();
    let mut seed = Seed::from_bytes(&bytes).unwrap();
    seed.lighthouses
        .retain(|l| l.https.iter().any(|at| at.ends_with(&port.to_string())));
    assert_eq!(seed.lighthouses.len(), 1);
    let node = runtime.block_on(Node::join(&seed, format!("127.0.0.1:{port}")));
    Stage {
        me,
        node,
        asked,
        honest,
        _runtime: runtime,
    }
}

impl Stage {
    /// Runs a command, which must succeed; its JSON, and what it said beside.
    fn done(&self, line: &str) -> (Value, String) {
        let out = self.me.run(&format!("{line} --output json"));
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success(), "{line}: {said}");
        assert!(!said.contains('\x1b'), "{line}: {said:?}");
        (serde_json::from_slice(&out.stdout).unwrap(), said)
    }

    /// As [`done`](Self::done), of a command that must say that the liar is at fault.
    fn named(&self, line: &str) -> Value {
        let (done, said) = self.done(line);
        assert!(said.contains(LIAR), "{line} does not name it: {said:?}");
        done
    }

    /// Everything that an operator needs; the fault shows in `nodes` and at `control` if so said.
    fn works(&self, listed: bool, control: bool) {
        let asked = |line: &str, shows: bool| {
            if shows {
                self.named(line)
            } else {
                self.done(line).0
            }
        };
        let nodes = asked("nodes", listed);
        assert_eq!(nodes[0]["name"], "n1", "{nodes}");
        assert_eq!(asked("status n1", control)["boot_id"], "0000");
        self.node.next_trial(Trial::Commits);
        let bundle = self.me.dir.path().join("b.bundle");
        std::fs::write(bundle, "no bundle at all").unwrap();
        asked("upgrade n1 b.bundle --wait --unchecked", control);
        assert_eq!(self.node.upgraded().len(), 1);
        let used = asked("token list", listed);
        assert_eq!(used[0]["used"], 1, "{used}");
    }

    /// What is signed gets to the honest one; `told`: the liar says that it did not take it.
    fn signs(&self, told: bool) {
        let signed = |line: &str| {
            if told {
                self.named(line)
            } else {
                self.done(line).0
            }
        };
        signed("policy allow a b");
        let evicted = signed("evict n1");
        assert_eq!(evicted["name"], "n1");
        assert_eq!(self.done("nodes").0, serde_json::json!([]));
        let removed = signed(&format!("lighthouse remove {LIAR}"));
        assert_eq!(removed["name"], LIAR);
        let left = self.done("lighthouse list").0;
        assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
        assert_eq!(
            (&left[0]["answers"], &left[0]["holds"]),
            (&true.into(), &removed["lighthouses"])
        );
        // It is asked no more.
        self.asked.lock().unwrap().clear();
        let (_, said) = self.done("nodes");
        assert_eq!(said, "");
        assert_eq!(*self.asked.lock().unwrap(), [""; 0]);
    }
}

#[test]
fn documents_that_no_root_signed() {
    let stage = stage(Lie::Unsigned);
    stage.works(true, true);
    stage.signs(true);
}

#[test]
fn a_refusal_of_everything() {
    let stage = stage(Lie::Refuses);
    stage.works(false, false);
    stage.signs(true);
}

#[test]
fn a_stream_to_nowhere() {
    let stage = stage(Lie::Nowhere);
    stage.works(true, true);
    stage.signs(false);
}

#[test]
fn no_answer_at_all() {
    let stage = stage(Lie::Hangs);
    stage.works(true, true);
    stage.signs(true);
}

/// With the honest one away nothing hinders that the liar is put out: the document is kept for it.
#[test]
fn the_liar_alone() {
    let mut stage = stage(Lie::Unsigned);
    stage.honest.end();
    let removed = stage.named(&format!("lighthouse remove {LIAR}"));
    assert_eq!(removed["name"], LIAR);
    let (code, said) = stage.me.fails("nodes");
    assert!(code == 3 && !said.contains(LIAR), "{code} {said}");
}
