//! wireguard-go as a machine's only WireGuard.

use crate::{Wire, run, until};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// wireguard-go, built once by the script that benchmarks use too.
fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/wireguard-go");
    run(&script.display().to_string()).trim().into()
}

/// A running wireguard-go; ended when dropped.
#[derive(Debug)]
pub struct WireguardGo {
    child: Child,
    /// Its network device.
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
