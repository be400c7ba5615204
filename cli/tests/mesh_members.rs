//! Members that are no nodes, on machines of their own (namespaces): Linux machines that join, and
//! a phone, played by wireguard-go, with the configuration that `holdfast client new` makes.
//!
//! Needs root; installs what it needs otherwise. Everything is removed at the end.

#[path = "../../lighthouse/tests/common/plain.rs"]
mod plain;

use plain::*;
use serde_json::Value;
use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ECHO: u16 = 7000;
const OPERATOR: usize = 1;
const PHONE: usize = 4;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    wire: Wire,
    dir: tempfile::TempDir,
}

impl Stage {
    /// A cluster whose lighthouse does not run yet.
    fn new(tag: &str, machines: u8) -> Self {
        let root = nix::unistd::geteuid().is_root();
        assert!(root, "network namespaces and TUN devices need root");
        let stage = Self {
            wire: Wire::new(tag, machines),
            dir: tempfile::tempdir().unwrap(),
        };
        let cluster = stage.path("home").display().to_string();
        stage.ok(
            OPERATOR,
            &format!("cluster new home --dir {cluster} --lighthouse 10.98.0.1 --https-port 8443 --udp-port 51820"),
        );
        stage
    }

    /// Runs until dropped, killed as by a power cut.
    fn lighthouse(&self) -> Running {
        let dir = self.path("home/lighthouse").display().to_string();
        let line = format!("lighthouse run --dir {dir}");
        let running = self.spawn(OPERATOR, &line, "lighthouse.log");
        until("the lighthouse answers", || {
            let out = self.command(OPERATOR, "nodes").output().unwrap();
            out.status.success().then_some(())
        });
        running
    }

    /// `holdfast LINE` on a machine.
    fn command(&self, machine: usize, line: &str) -> Command {
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

    fn ok(&self, machine: usize, line: &str) -> String {
        let out = self.command(machine, line).output().unwrap();
        assert!(out.status.success(), "{line}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn json(&self, machine: usize, line: &str) -> Value {
        serde_json::from_str(&self.ok(machine, &format!("{line} --output json"))).unwrap()
    }

    fn fails(&self, machine: usize, line: &str) -> String {
        let out = self.command(machine, line).output().unwrap();
        assert!(!out.status.success(), "{line}: {out:?}");
        String::from_utf8(out.stderr).unwrap()
    }

    fn spawn(&self, machine: usize, line: &str, log: &str) -> Running {
        let log = File::create(self.dir.path().join(log)).unwrap();
        let mut command = self.command(machine, line);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Machine `n` joins as `name`, and runs until dropped.
    fn join(&self, n: usize, name: &str) -> (Running, IpAddr) {
        self.ok(
            OPERATOR,
            &format!("seed new --role bare --name {name} --out {name}.toml"),
        );
        let line = format!("join {name}.toml --foreground --dir {}", self.member(name));
        let running = self.spawn(n, &line, &format!("{name}.log"));
        let status = format!("mesh status --dir {} --output json", self.member(name));
        until(&format!("{name} has a mesh"), || {
            let out = self.command(n, &status).output().unwrap();
            let peers: Value = serde_json::from_slice(&out.stdout).ok()?;
            let lighthouse = peers.as_array()?.first()?["handshake_age"].clone();
            lighthouse.is_u64().then_some(())
        });
        let nodes = self.json(OPERATOR, "nodes");
        let own = nodes.as_array().unwrap().iter().find(|v| v["name"] == name);
        let address = own.unwrap()["mesh_address"].as_str().unwrap();
        (running, address.parse().unwrap())
    }

    fn member(&self, name: &str) -> String {
        self.path(&format!("{name}.member")).display().to_string()
    }

    /// Sends back what comes.
    fn echo(&self, machine: usize) {
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
    fn reaches(&self, machine: usize, to: IpAddr) -> bool {
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

/// What `wg` takes of a configuration for `wg-quick`, and the addresses.
fn for_wg(text: &str) -> (String, Vec<String>) {
    let own = |l: &&str| !l.starts_with("Address") && !l.starts_with("MTU");
    let stripped: Vec<&str> = text.lines().filter(own).collect();
    let addresses = text.lines().find_map(|l| l.strip_prefix("Address = "));
    let addresses = addresses.unwrap().split(", ").map(Into::into).collect();
    (stripped.join("\n") + "\n", addresses)
}

#[test]
fn a_lighthouse_put_back_hears_of_a_member_that_is_off() {
    let stage = Stage::new("q", 3);
    let store = stage.path("home/lighthouse/store.redb");
    let backup = stage.path("backup");
    let lighthouse = stage.lighthouse();
    let (_n1, _) = stage.join(2, "n1");
    drop(lighthouse);
    std::fs::copy(&store, &backup).unwrap();
    let lighthouse = stage.lighthouse();
    let (n2, _) = stage.join(3, "n2");
    let names = || {
        let nodes = stage.json(OPERATOR, "nodes");
        let all = nodes.as_array().unwrap().iter();
        all.map(|v| v["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let status = format!("mesh status --dir {}", stage.member("n1"));
    until("n1 knows n2", || {
        let peers = stage.json(2, &status);
        let mut all = peers.as_array().unwrap().iter();
        all.any(|p| p["name"] == "n2").then_some(())
    });
    // Off for good, as far as anybody knows.
    drop((n2, lighthouse));
    std::fs::copy(&backup, &store).unwrap();
    let _lighthouse = stage.lighthouse();
    assert_eq!(names(), ["n1"]);
    until("n1 hands on that n2 is a member", || {
        (names() == ["n1", "n2"]).then_some(())
    });
}

#[test]
fn a_machine_joins_and_a_phone_reaches_it_through_the_lighthouse() {
    let stage = Stage::new("m", 4);
    let _lighthouse = stage.lighthouse();

    // Two machines join and reach each other.
    let (n1, at1) = stage.join(2, "n1");
    let (_n2, at2) = stage.join(3, "n2");
    (2..=4).for_each(|machine| stage.echo(machine));
    until("n2 reaches n1", || stage.reaches(3, at1).then_some(()));
    until("n1 reaches n2", || stage.reaches(2, at2).then_some(()));
    let dir = stage.member("n1");
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&format!("{dir}/state"))), (0o700, 0o600));
    let said = stage.fails(2, &format!("join n1.toml --foreground --dir {dir}"));
    assert!(said.contains("mesh down"), "{said}");

    // A phone, whose only peer is n1, at the lighthouse's port.
    let said = stage.fails(OPERATOR, "client new --wireguard phone");
    assert!(said.contains("n1, n2"), "{said}");
    let made = stage.json(
        OPERATOR,
        "client new --wireguard phone --node n1 --save phone.conf",
    );
    assert_eq!(made["endpoint"], "10.98.0.1:51820");
    let file = stage.path("phone.conf");
    assert_eq!(mode(file.to_str().unwrap()), 0o600);
    let shown = stage.ok(OPERATOR, "client new --wireguard tablet --node n1 --qr");
    assert!(
        shown.contains("PrivateKey = ") && shown.contains('▀'),
        "{shown}"
    );
    let phone = WireguardGo::start(&stage.wire, PHONE);
    let (configuration, addresses) = for_wg(&std::fs::read_to_string(file).unwrap());
    phone.configure(&configuration);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    stage.wire.address(PHONE, &phone.device, &addresses);
    let place = stage.wire.at(PHONE);
    // As wg-quick does for AllowedIPs.
    let allowed = configuration
        .lines()
        .find_map(|l| l.strip_prefix("AllowedIPs = "));
    for net in allowed.unwrap().split(", ") {
        run(&format!(
            "ip -n {place} route add {net} dev {}",
            phone.device
        ));
    }
    until("the phone reaches n1", || {
        stage.reaches(PHONE, at1).then_some(())
    });
    until("the phone reaches n2, through n1", || {
        stage.reaches(PHONE, at2).then_some(())
    });
    let own: IpAddr = made["address"].as_str().unwrap().parse().unwrap();
    for machine in [2, 3] {
        until("the phone is reached", || {
            stage.reaches(machine, own).then_some(())
        });
    }
    assert!(phone.show("endpoints").trim().ends_with("10.98.0.1:51820"));
    let nodes = stage.json(OPERATOR, "nodes");
    let view = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == "phone");
    assert_eq!(view.unwrap()["client"], true);

    // Out it goes.
    stage.ok(OPERATOR, "evict phone");
    until("the phone reaches nobody", || {
        (!stage.reaches(PHONE, at1)).then_some(())
    });

    // What joined goes without a trace.
    let place = stage.wire.at(2);
    assert!(run(&format!("ip -n {place} rule")).contains("1380"));
    stage.ok(2, &format!("mesh down --dir {dir}"));
    drop(n1);
    let links = run(&format!("ip -n {place} -o link"));
    assert!(!links.contains("hf0"), "{links}");
    for family in ["-4", "-6"] {
        let left = run(&format!("ip {family} -n {place} rule"));
        assert!(!left.contains("1380"), "{left}");
        let left = run(&format!("ip {family} -n {place} route show table all"));
        assert!(!left.contains("hf0"), "{left}");
    }
    let said = stage.fails(2, &format!("mesh status --dir {dir}"));
    assert!(said.contains("mesh up"), "{said}");
    stage.ok(2, &format!("leave --dir {dir}"));
    let said = stage.fails(2, &format!("mesh up --dir {dir}"));
    assert!(said.contains("not joined"), "{said}");
}
