//! Test equipment: machines as network namespaces of this machine, which the tests make and remove
//! themselves; and whether tests that need root run at all.

#![allow(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a test ends by a panic"
)]

mod gate;
mod wire;
mod wireguard_go;

pub use gate::{ASKED, Needs, possible, skipped};
pub use wire::Wire;
pub use wireguard_go::WireguardGo;

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Anything in these tests comes within this time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a program to its end; what it printed.
pub fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let done = Command::new(words[0]).args(&words[1..]).output();
    let done = done.unwrap_or_else(|e| panic!("{line}: {e} (scripts/setup installs it)"));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{line}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Polls until `found` gives something.
pub fn until<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, found)
}

/// As [`until`], for as long.
pub fn within<T>(patience: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does `work` in a namespace, in a thread that lives there.
pub fn there<T: Send + 'static>(
    place: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let at = File::open(format!("/run/netns/{place}")).unwrap();
    std::thread::spawn(move || {
        setns(at, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// As [`there`], with a runtime whose threads all live there.
pub fn runtime_there<T: Send + 'static, F: Future<Output = T>>(
    place: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<T> {
    there(place, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work())
    })
}

/// Hands `rules` to the nft of a namespace.
pub fn nft(place: &str, rules: &str) {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", place, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = nft.stdin.take().unwrap();
    stdin.write_all(rules.as_bytes()).unwrap();
    drop(stdin);
    assert!(nft.wait().unwrap().success(), "{rules}");
}

/// Namespaces with names of this process; gone when dropped.
#[derive(Debug)]
pub struct Places {
    prefix: String,
    names: Vec<String>,
}

impl Places {
    /// None yet; `tag` tells those of one test from another's.
    pub fn new(tag: &str) -> Self {
        Self {
            prefix: format!("hf{}{tag}", std::process::id()),
            names: vec![],
        }
    }

    /// A new one, of which only the loopback is up; its whole name.
    pub fn add(&mut self, name: &str) -> String {
        let full = self.name(name);
        run(&format!("ip netns add {full}"));
        self.names.push(full.clone());
        run(&format!("ip -n {full} link set lo up"));
        full
    }

    /// The whole name of the one that was called `name`.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The part that all whole names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The whole name of the n-th.
    pub fn at(&self, n: usize) -> &str {
        &self.names[n]
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}
