//! An operator on this machine, with a cluster and a lighthouse on loopback; `nobody` where the
//! tests run as root.
#![allow(dead_code)]

use serde_json::Value;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `nobody`, where the tests themselves run as root.
const NOBODY: u32 = 65534;

pub struct Operator {
    pub dir: tempfile::TempDir,
    program: PathBuf,
    pub cluster: PathBuf,
}

impl Operator {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A copy: an ordinary user may not reach the build folder of root.
        let program = dir.path().join("holdfast");
        install(Path::new(env!("CARGO_BIN_EXE_holdfast")), &program);
        if is_root() {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let cluster = dir.path().join("home");
        Self {
            dir,
            program,
            cluster,
        }
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOLDFAST_PASSPHRASE", "correct horse")
            .env("HOLDFAST_CLUSTER", &self.cluster)
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    pub fn ok(&self, line: &str) -> String {
        let out = self.run(line);
        assert!(out.status.success(), "{line}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --output json"))).unwrap()
    }

    /// The exit code, and what was said on standard error.
    pub fn fails(&self, line: &str) -> (i32, String) {
        let out = self.run(line);
        assert!(!out.status.success(), "{line}: {out:?}");
        (
            out.status.code().unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    }

    pub fn new_cluster(&self) -> (u16, Value) {
        let (https, udp) = (free_tcp(), free_udp());
        let line = format!(
            "cluster new home --dir {} --lighthouse 10.0.2.2 --reach 127.0.0.1 --listen 127.0.0.1 --https-port {https} --udp-port {udp}",
            self.cluster.display()
        );
        (https, self.json(&line))
    }

    pub fn lighthouse(&self, https: u16) -> Running {
        self.lighthouse_in(&self.cluster.join("lighthouse"), https)
    }

    pub fn lighthouse_in(&self, dir: &Path, https: u16) -> Running {
        let child = self
            .command(&format!("lighthouse run --dir {}", dir.display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", https)).is_err() {
            if let Some(status) = running.0.try_wait().unwrap() {
                let mut said = String::new();
                std::io::Read::read_to_string(running.0.stderr.as_mut().unwrap(), &mut said)
                    .unwrap();
                panic!("the lighthouse ended: {status}: {said}");
            }
            assert!(Instant::now() < deadline, "the lighthouse does not listen");
            std::thread::yield_now();
        }
        running
    }
}

/// A TCP port of 127.0.0.1 that nobody listens at.
pub fn free_tcp() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// The same of UDP.
pub fn free_udp() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// Copies a program by a process of its own: were it written by this one, a child that another test
/// forks meanwhile would hold it open for writing, and it could not be run ("text file busy").
pub fn install(from: &Path, to: &Path) {
    let mut install = Command::new("install");
    let status = install.args(["-m", "755"]).args([from, to]).status();
    assert!(status.unwrap().success());
}

pub struct Running(Child);

impl Running {
    /// Ends it, as by a power cut.
    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
