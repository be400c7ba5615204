//! A lighthouse is lost with its disk; another one, with other keys, stands at another address under
//! the same name. All members come back: those that run, one that reaches it over TLS only, and one
//! that was off all the while.
//!
//! Needs root and `nft`. The name is in each namespace's own hosts file; everything is removed at
//! the end.

#[path = "common/stage.rs"]
mod stage;

use holdfast_testnet::within;
use stage::{OPERATOR, Stage};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const NAME: &str = "lighthouse.example";
const MACHINES: u8 = 5;
/// The machine of the second lighthouse, and of the operator then.
const ELSEWHERE: usize = 5;
/// What stands where a name was looked up last is given up after 20 s.
const BACK: Duration = Duration::from_secs(90);

/// `ip netns exec` shows these to what it starts.
struct Hosts(Vec<PathBuf>);

impl Hosts {
    fn new(stage: &Stage) -> Self {
        let folder = |n: u8| PathBuf::from("/etc/netns").join(stage.wire.at(n.into()));
        let hosts = Self((1..=MACHINES).map(folder).collect());
        hosts.0.iter().for_each(|f| fs::create_dir_all(f).unwrap());
        hosts
    }

    /// The name stands for machine `n`. Written in place: what runs already has the file mounted.
    fn point_to(&self, n: usize) {
        for folder in &self.0 {
            let text = format!("127.0.0.1 localhost\n10.98.0.{n} {NAME}\n");
            fs::write(folder.join("hosts"), text).unwrap();
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _ = fs::remove_dir_all(folder);
        }
        let _ = fs::remove_dir("/etc/netns");
    }
}

/// Names of the members that shook hands with this lighthouse, sorted.
fn online(stage: &Stage, operator: usize) -> Vec<String> {
    let nodes = stage.json(operator, "nodes");
    let nodes = nodes.as_array().unwrap().iter();
    nodes
        .filter(|n| n["handshake_age"].is_u64())
        .map(|n| n["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn all_members_find_the_next_lighthouse_under_the_old_name() {
    let Some(stage) = Stage::with_host("e", MACHINES, NAME) else {
        return;
    };
    let hosts = Hosts::new(&stage);
    hosts.point_to(OPERATOR);
    stage.wire.without_udp(4);
    let lighthouse = stage.lighthouse();
    let (_n1, at1) = stage.join(2, "n1");
    let (n2, at2) = stage.join(3, "n2");
    let (_n3, at3) = stage.join(4, "n3");
    (2..=4).for_each(|machine| stage.echo(machine));
    let all_reached = || {
        let pairs = [(2, at2), (2, at3), (3, at1), (3, at3), (4, at1), (4, at2)];
        let all = pairs.iter().all(|(from, to)| stage.reaches(*from, *to));
        all.then_some(())
    };
    within(BACK, "each reaches each", all_reached);

    drop((n2, lighthouse));
    fs::remove_dir_all(stage.path("home/lighthouse")).unwrap();
    stage.ok(OPERATOR, "lighthouse restore");
    hosts.point_to(ELSEWHERE);
    let _lighthouse = stage.lighthouse_at(ELSEWHERE);
    within(BACK, "those that run are back", || {
        (online(&stage, ELSEWHERE) == ["n1", "n3"]).then_some(())
    });
    let line = format!("mesh up --dir {}", stage.member("n2"));
    let _n2 = stage.spawn(3, &line, "n2.again.log");
    within(BACK, "the one that was off too", || {
        (online(&stage, ELSEWHERE) == ["n1", "n2", "n3"]).then_some(())
    });
    within(BACK, "each reaches each", all_reached);
}
