//! A namespace for each machine on one wire, and wireguard-go as a machine's only WireGuard.

#![allow(dead_code)]

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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

/// Machines `0`, `1`, ... at 10.98.0.1, 10.98.0.2, ... on one wire; gone when dropped.
pub struct Wire {
    prefix: String,
    names: Vec<String>,
}

impl Wire {
    pub fn new(tag: &str, machines: u8) -> Self {
        let prefix = format!("hfplain{}{tag}", std::process::id());
        let mut wire = Self {
            names: vec![],
            prefix,
        };
        let hub = wire.add("hub");
        run(&format!("ip -n {hub} link add br0 type bridge"));
        run(&format!("ip -n {hub} link set br0 up"));
        for n in 1..=machines {
            let place = wire.add(&n.to_string());
            run(&format!(
                "ip link add wire netns {place} type veth peer name m{n} netns {hub}"
            ));
            run(&format!("ip -n {hub} link set m{n} master br0 up"));
            run(&format!("ip -n {place} addr add 10.98.0.{n}/24 dev wire"));
            run(&format!("ip -n {place} link set wire up"));
        }
        wire
    }

    fn add(&mut self, name: &str) -> String {
        let full = format!("{}{name}", self.prefix);
        run(&format!("ip netns add {full}"));
        self.names.push(full.clone());
        run(&format!("ip -n {full} link set lo up"));
        full
    }

    /// The namespace of a machine; the first is 1.
    pub fn at(&self, machine: usize) -> &str {
        &self.names[machine]
    }

    /// Gives a machine the TUN device `hf0`, as init makes it, with these addresses.
    pub fn tun(&self, machine: usize, addresses: &[&str]) {
        let at = self.at(machine);
        run(&format!("ip -n {at} tuntap add dev hf0 mode tun vnet_hdr"));
        self.address(machine, "hf0", addresses);
    }

    /// Addresses, MTU and link state of a mesh interface.
    pub fn address(&self, machine: usize, device: &str, addresses: &[&str]) {
        let at = self.at(machine);
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            run(&format!(
                "ip -n {at} addr add {address} dev {device}{nodad}"
            ));
        }
        run(&format!("ip -n {at} link set {device} mtu 1380 up"));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// wireguard-go, built once by the script that benchmarks use too.
fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/wireguard-go");
    run(&script.display().to_string()).trim().into()
}

/// A running wireguard-go; ended when dropped.
pub struct WireguardGo {
    child: Child,
    pub device: String,
    place: String,
}

impl WireguardGo {
    /// Starts it on a machine, without keys and peers.
    pub fn start(wire: &Wire, machine: usize) -> Self {
        // Its control socket's name is one for all namespaces.
        let device = format!("hfp{}m{machine}", std::process::id());
        let place = wire.at(machine).to_owned();
        let child = Command::new("ip")
            .args(["netns", "exec", &place])
            .arg(program())
            .args(["-f", &device])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self {
            child,
            device,
            place,
        };
        let socket = format!("/var/run/wireguard/{}.sock", this.device);
        until("wireguard-go's socket", || {
            UnixStream::connect(&socket).ok()
        });
        this
    }

    /// Takes a configuration as `wg` understands it.
    pub fn configure(&self, text: &str) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let (place, device, path) = (&self.place, &self.device, file.path().display());
        run(&format!("ip netns exec {place} wg setconf {device} {path}"));
    }

    /// What `wg show DEVICE FIELD` says.
    pub fn show(&self, field: &str) -> String {
        let (place, device) = (&self.place, &self.device);
        run(&format!("ip netns exec {place} wg show {device} {field}"))
    }
}

impl Drop for WireguardGo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
