//! Machines as network namespaces, a cluster, and its members on them. Needs root.

#![allow(dead_code)]

use holdfast_testnet::{Needs, Wire, possible, there, until};
use serde_json::Value;
use std::fs::File;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const ECHO: u16 = 7000;
/// Where each lighthouse's API is.
const HTTPS: u16 = 8443;
pub const OPERATOR: usize = 1;

/// A program, killed when dropped.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster, and machines (namespaces) on one wire; the first is the operator's, and a lighthouse's.
pub struct Stage {
    pub wire: Wire,
    pub dir: tempfile::TempDir,
}

impl Stage {
    /// A cluster whose lighthouse, on the first machine, does not run yet; none where there can be no
    /// such machines.
    pub fn new(tag: &str, machines: u8) -> Option<Self> {
        Self::with_host(tag, machines, "10.98.0.1")
    }

    /// As [`new`](Self::new), with another name or address for the lighthouse.
    pub fn with_host(tag: &str, machines: u8, host: &str) -> Option<Self> {
        if !possible(&[Needs::Tun, Needs::Nft]) {
            return None;
        }
        let stage = Self {
            wire: Wire::new(tag, machines),
            dir: tempfile::tempdir().unwrap(),
        };
        let cluster = stage.path("home").display().to_string();
        stage.ok(
            OPERATOR,
            &format!("cluster new home --dir {cluster} --lighthouse {host} --https-port {HTTPS} --udp-port 51820"),
        );
        Some(stage)
    }

    /// Runs until dropped, killed as by a power cut.
    pub fn lighthouse(&self) -> Running {
        self.lighthouse_at(OPERATOR)
    }

    /// The same, on another machine.
    pub fn lighthouse_at(&self, machine: usize) -> Running {
        self.lighthouse_in("lighthouse", machine)
    }

    /// The one whose folder in the cluster's directory is `folder`, on a machine; it listens when this
    /// returns.
    pub fn lighthouse_in(&self, folder: &str, machine: usize) -> Running {
        let dir = self.path("home").join(folder).display().to_string();
        let line = format!("lighthouse run --dir {dir}");
        let log = format!("{}.log", folder.replace('/', "-"));
        let running = self.spawn(machine, &line, &log);
        until(&format!("the lighthouse of {folder} listens"), || {
            let to = (format!("10.98.0.{machine}"), HTTPS);
            let at = there(self.wire.at(machine), || TcpStream::connect(to));
            at.join().unwrap().ok()
        });
        running
    }

    /// `holdfast LINE` on a machine.
    pub fn command(&self, machine: usize, line: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", self.wire.at(machine)])
            .arg(env!("CARGO_BIN_EXE_holdfast"))
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env("HOLDFAST_PASSPHRASE", "correct horse")
            .env("HOLDFAST_CLUSTER", self.dir.path().join("home"))
            .stdin(Stdio::null());
        command
    }

    pub fn ok(&self, machine: usize, line: &str) -> String {
        let out = self.command(machine, line).output().unwrap();
        assert!(out.status.success(), "{line}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    pub fn json(&self, machine: usize, line: &str) -> Value {
        serde_json::from_str(&self.ok(machine, &format!("{line} --output json"))).unwrap()
    }

    pub fn fails(&self, machine: usize, line: &str) -> String {
        let out = self.command(machine, line).output().unwrap();
        assert!(!out.status.success(), "{line}: {out:?}");
        String::from_utf8(out.stderr).unwrap()
    }

    pub fn spawn(&self, machine: usize, line: &str, log: &str) -> Running {
        let log = File::create(self.dir.path().join(log)).unwrap();
        let mut command = self.command(machine, line);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Machine `n` joins as `name`, in the group `name-s`, and runs until dropped.
    pub fn join(&self, n: usize, name: &str) -> (Running, IpAddr) {
        self.ok(
            OPERATOR,
            &format!("seed new --role bare --name {name} --group {name}-s --out {name}.toml"),
        );
        self.join_with(n, name)
    }

    /// As [`join`](Self::join), with the seed that there is.
    pub fn join_with(&self, n: usize, name: &str) -> (Running, IpAddr) {
        let line = format!("join {name}.toml --foreground --dir {}", self.member(name));
        let running = self.spawn(n, &line, &format!("{name}.log"));
        let status = format!("mesh status --dir {} --output json", self.member(name));
        until(&format!("{name} has a mesh"), || {
            let out = self.command(n, &status).output().unwrap();
            let peers: Value = serde_json::from_slice(&out.stdout).ok()?;
            let some = peers
                .as_array()?
                .iter()
                .any(|p| p["handshake_age"].is_u64());
            some.then_some(())
        });
        let nodes = self.json(OPERATOR, "nodes");
        let own = nodes.as_array().unwrap().iter().find(|v| v["name"] == name);
        let address = own.unwrap()["mesh_address"].as_str().unwrap();
        (running, address.parse().unwrap())
    }

    pub fn member(&self, name: &str) -> String {
        self.path(&format!("{name}.member")).display().to_string()
    }

    /// Sends back what comes.
    pub fn echo(&self, machine: usize) {
        let socket = there(self.wire.at(machine), || UdpSocket::bind(("::", ECHO)));
        let socket = socket.join().unwrap().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..len], from);
            }
        });
    }

    /// Whether a datagram comes back from an address within half a second.
    pub fn reaches(&self, machine: usize, to: IpAddr) -> bool {
        let exchange = there(self.wire.at(machine), move || {
            let socket = UdpSocket::bind(("::", 0))?;
            socket.connect((to, ECHO))?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.send(&[7; 1300])?;
            let mut back = [0; 2000];
            let len = socket.recv(&mut back)?;
            assert!(back[..len] == [7; 1300]);
            std::io::Result::Ok(())
        });
        exchange.join().unwrap().is_ok()
    }
}
