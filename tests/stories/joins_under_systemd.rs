//! `holdfast join` on a Linux machine: it writes, enables and starts a unit of systemd's, which
//! outlives restarts, kills and a reboot; the machine has the cluster's names where systemd-resolved
//! runs; and `holdfast leave` takes all of it back.
//!
//! Needs root, and systemd on this machine's disk. systemd-resolved comes as a package from the
//! mirror that this machine's apt uses, unpacked for the test alone, where it is not installed.

use anyhow::{Context as _, Result, ensure};
use holdfast_testnet::Wire;
use holdfast_tests::command::{PASSPHRASE, binary, top};
use holdfast_tests::systemd::SystemdMachine;
use holdfast_tests::{Story, until_some};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const UNIT: &str = "holdfast-member.service";
/// Machines on the wire: the operator's with the lighthouse, the one under test, another member.
const OPERATOR: usize = 1;
const TESTED: usize = 2;
const OTHER: usize = 3;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    wire: Wire,
    dir: PathBuf,
}

impl Stage {
    fn new() -> Result<Self> {
        let dir = top().join("target/stories/joins_under_systemd");
        if dir.exists() {
            std::fs::remove_dir_all(&dir).context("clear the last run's folder")?;
        }
        std::fs::create_dir_all(&dir)?;
        let wire = Wire::new("sd", 3);
        Ok(Self { wire, dir })
    }

    /// `holdfast LINE` on a machine that is a network namespace only.
    fn command(&self, machine: usize, line: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", self.wire.at(machine)])
            .arg(binary())
            .args(line.split_whitespace())
            .current_dir(&self.dir)
            .env("HOLDFAST_PASSPHRASE", PASSPHRASE)
            .env("HOLDFAST_CLUSTER", self.dir.join("home"))
            .env("XDG_STATE_HOME", self.dir.join("xdg"))
            .stdin(Stdio::null());
        command
    }

    fn ok(&self, line: &str) -> Result<String> {
        let done = self.command(OPERATOR, line).output()?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success(), "{line}: {said}");
        Ok(String::from_utf8(done.stdout)?)
    }

    fn spawn(&self, machine: usize, line: &str, log: &str) -> Result<Running> {
        let log = File::create(self.dir.join(log))?;
        let mut command = self.command(machine, line);
        command.stdout(log.try_clone()?).stderr(log);
        Ok(Running(command.spawn()?))
    }

    /// systemd-resolved's package, for a machine that has none.
    fn resolved(&self) -> Result<Option<PathBuf>> {
        if Path::new("/usr/lib/systemd/systemd-resolved").exists() {
            return Ok(None);
        }
        let fetched = Command::new("apt-get")
            .args(["-qq", "download", "systemd-resolved"])
            .current_dir(&self.dir)
            .output()
            .context("apt-get")?;
        let said = String::from_utf8_lossy(&fetched.stderr);
        ensure!(fetched.status.success(), "apt-get download: {said}");
        let entries = std::fs::read_dir(&self.dir)?.filter_map(Result::ok);
        let mut packages = entries.map(|e| e.path());
        let package = packages.find(|p| p.extension().is_some_and(|e| e == "deb"));
        package.map(Some).context("no package came")
    }
}

/// Waits until the machine's own member has a session with everybody named.
fn meets(machine: &SystemdMachine, names: &[&str]) -> Result<()> {
    until_some(&format!("a session with {names:?}"), SOON, || {
        let shown = machine.ok("holdfast mesh status --output json");
        let shown = shown.map_err(|e| format!("{e:#}"))?;
        let peers: Value = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
        let met = |name: &&str| {
            let mut peers = peers.as_array().into_iter().flatten();
            peers.any(|p| p["name"] == **name && p["handshake_age"].is_u64())
        };
        if names.iter().all(met) {
            Ok(())
        } else {
            Err(shown)
        }
    })
}

fn main_pid(machine: &SystemdMachine) -> Result<String> {
    machine.ok(&format!("systemctl show --value -p MainPID {UNIT}"))
}

/// Nothing of the mesh is left on the machine's network.
fn clean(machine: &SystemdMachine) -> Result<()> {
    let links = machine.ok("ip -o link")?;
    ensure!(!links.contains("hf0"), "{links}");
    for family in ["-4", "-6"] {
        let left = machine.ok(&format!("ip {family} rule"))?;
        ensure!(!left.contains("1380"), "{left}");
        let left = machine.ok(&format!("ip {family} route show table all"))?;
        ensure!(!left.contains("hf0"), "{left}");
    }
    Ok(())
}

#[test]
fn a_linux_machine_joins_with_a_unit_and_leaves_without_a_trace() -> Story {
    let stage = Stage::new()?;
    stage.ok(
        "cluster new home --dir home --lighthouse 10.98.0.1 --https-port 8443 --udp-port 51820",
    )?;
    let _lighthouse = stage.spawn(
        OPERATOR,
        "lighthouse run --dir home/lighthouse",
        "lighthouse.log",
    )?;
    until_some("the lighthouse answers", SOON, || {
        stage.ok("nodes").map_err(|e| format!("{e:#}"))
    })?;
    for name in ["laptop", "other"] {
        stage.ok(&format!(
            "seed new --role bare --name {name} --out {name}.toml"
        ))?;
    }
    let _other = stage.spawn(
        OTHER,
        "join other.toml --foreground --dir other",
        "other.log",
    )?;

    let resolved = stage.resolved()?;
    let place = stage.wire.at(TESTED);
    let machine = SystemdMachine::start(place, &stage.dir, resolved.as_deref())?;
    if resolved.is_some() {
        machine.ok("systemd-sysusers")?;
    }
    machine.ok("ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf")?;
    machine.ok("systemctl enable --now systemd-resolved")?;

    // Joined, enabled, running.
    std::fs::copy(
        stage.dir.join("laptop.toml"),
        machine.path("/root/laptop.toml")?,
    )?;
    println!("{}", machine.ok("holdfast join laptop.toml")?);
    ensure!(machine.ok(&format!("systemctl is-enabled {UNIT}"))?.trim() == "enabled");
    machine.ok(&format!(
        "systemd-analyze verify /etc/systemd/system/{UNIT}"
    ))?;
    meets(&machine, &["lighthouse-1"])?;
    // Its own name, and another's, as any program asks for them.
    let found = until_some("names", SOON, || {
        let all =
            ["laptop", "other"].map(|n| machine.ok(&format!("getent hosts {n}.home.internal")));
        let [one, two] = all.map(|one| one.map_err(|e| format!("{e:#}")));
        Ok(one? + &two?)
    })?;
    println!("{found}");
    let nodes: Value = serde_json::from_str(&stage.ok("nodes --output json")?)?;
    for node in nodes.as_array().into_iter().flatten() {
        let v6 = node["mesh_address6"].as_str().unwrap_or("none");
        let v4 = node["mesh_address"].as_str().unwrap_or("none");
        ensure!(found.contains(v4) || found.contains(v6), "{node}");
    }
    // Nobody else's names are asked for there, and traffic reaches the other member.
    let told = machine.ok("resolvectl status hf0")?;
    println!("{told}");
    ensure!(
        told.contains("~home.internal") && told.contains("-DefaultRoute"),
        "{told}"
    );
    machine.ok("ping -c 1 -W 10 other.home.internal")?;
    meets(&machine, &["lighthouse-1", "other"])?;

    // It outlives a restart, a kill, and a reboot.
    let first = main_pid(&machine)?;
    machine.ok(&format!("systemctl restart {UNIT}"))?;
    meets(&machine, &["lighthouse-1"])?;
    let second = main_pid(&machine)?;
    ensure!(first != second, "{second}");
    machine.ok(&format!("systemctl kill -s KILL {UNIT}"))?;
    until_some("another process", SOON, || match main_pid(&machine) {
        Ok(pid) if pid != second && pid.trim() != "0" => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    meets(&machine, &["lighthouse-1"])?;
    machine.ok("systemctl restart systemd-resolved")?;
    machine.reboot()?;
    meets(&machine, &["lighthouse-1"])?;
    until_some("names again", SOON, || {
        let asked = machine.ok("getent hosts other.home.internal");
        asked.map_err(|e| format!("{e:#}"))
    })?;

    // Down, and up again as its owner likes.
    let said = machine.ok("holdfast mesh down")?;
    ensure!(said.contains("gone"), "{said}");
    clean(&machine)?;
    let told = machine.ok("resolvectl status")?;
    ensure!(!told.contains("home.internal"), "{told}");
    machine.ok(&format!("systemctl enable --now {UNIT}"))?;
    meets(&machine, &["lighthouse-1"])?;

    machine.ok("holdfast leave")?;
    clean(&machine)?;
    // No such unit (systemctl(1), "Exit status").
    let status = machine.run(&format!("systemctl status {UNIT}"))?.status;
    ensure!(status.code() == Some(4), "{status}");
    ensure!(
        !machine
            .path(&format!("/etc/systemd/system/{UNIT}"))?
            .exists()
    );
    ensure!(machine.ok("getent hosts other.home.internal").is_err());
    Ok(())
}
