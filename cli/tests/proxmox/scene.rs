//! An operator at work: a fake host, an image, seeds, and the command.

use crate::fake::state::State;
use crate::fake::{Fake, TOKEN};
use holdfast_core::seed::Seed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An operator with a fake host, an image and seeds.
pub struct Scene {
    pub fake: Fake,
    pub dir: tempfile::TempDir,
}

/// The text of a seed.
pub fn seed(name: Option<&str>) -> String {
    let mut seed = Seed::parse(include_str!("../../../core/src/seed/example.toml")).unwrap();
    seed.name = name.map(|n| n.parse().unwrap());
    seed.to_toml().unwrap()
}

impl Scene {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let mut image = b"QFI\xfb".to_vec();
        image.resize(700_000, 7);
        write("node.qcow2", &image);
        write("n1.toml", seed(Some("n1")).as_bytes());
        write("shelf.toml", seed(None).as_bytes());
        let pi = seed(Some("n1")).replacen("issued", "board = \"rpi4\"\nissued", 1);
        write("pi.toml", pi.as_bytes());
        write("cloud.yaml", b"#cloud-config\nhostname: n1\n");
        Self {
            fake: Fake::start(),
            dir,
        }
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .arg("proxmox")
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env(
                "HOLDFAST_PROXMOX_HOST",
                format!("127.0.0.1:{}", self.fake.port),
            )
            .env("HOLDFAST_PROXMOX_FINGERPRINT", &self.fake.fingerprint)
            .env("HOLDFAST_PROXMOX_TOKEN", TOKEN)
            .stdin(Stdio::null());
        command
    }

    pub fn ok(&self, line: &str) -> Value {
        let out = self
            .command(line)
            .args(["--output", "json"])
            .output()
            .unwrap();
        assert!(out.status.success(), "{line}: {}", text(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    pub fn fails(&self, line: &str) -> (i32, String) {
        let out = self.command(line).output().unwrap();
        assert!(!out.status.success(), "{line}: {}", text(&out));
        (out.status.code().unwrap(), text(&out))
    }

    /// Begins a command and waits until a task of this kind runs.
    pub fn begin(&self, line: &str, kind: &str) -> Child {
        let child = self
            .command(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.until(&format!("{kind} begins"), |state| state.runs(kind));
        child
    }

    /// Waits until the host is so.
    pub fn until(&self, what: &str, so: impl Fn(&State) -> bool) {
        let began = Instant::now();
        while !so(&self.fake.state()) {
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(60), "waiting until {what}");
            std::thread::yield_now();
        }
    }

    pub fn drives(&self) -> Vec<String> {
        let state = self.fake.state();
        let isos = state.files.keys().filter(|v| v.contains(":iso/"));
        isos.cloned().collect()
    }

    pub fn empty(&self) -> bool {
        self.drives().is_empty() && self.fake.state().vms.is_empty()
    }
}

/// What a command said.
pub fn text(out: &Output) -> String {
    String::from_utf8_lossy(&[out.stdout.clone(), out.stderr.clone()].concat()).into_owned()
}

pub const CREATE: &str = "create --image node.qcow2 --seed n1.toml --storage local-lvm";

pub fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}

/// Presses Ctrl-C.
pub fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
}
