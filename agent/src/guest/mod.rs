//! QEMU's guest agent, for hosts such as Proxmox: it tells addresses, stops the node in order, and
//! holds writes while the disk is copied. A thread of its own, beside the agent's event loops: it
//! has to answer when they wait for something.

mod command;
mod facts;
mod freeze;
mod fs;
mod wire;

use crate::backoff::Backoff;
use crate::init::Init;
use command::{Call, Command, Shutdown, parse};
use freeze::{Freezer, Frozen as _};
use fs::Var;
use holdfast_core::image::ImageInfo;
use holdfast_core::ipc::InitRequest;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Handle;
use wire::{Outcome, Reader, Refusal, encode};

/// The kernel's list of virtio's ports; there is no udev that would name their devices.
const PORTS: &str = "/sys/class/virtio-ports";
/// The port's name on every host.
const NAME: &str = "org.qemu.guest_agent.0";
/// A port that no host holds open reads as ended: asked again after this.
const NOBODY: Duration = Duration::from_millis(200);

/// Starts it; on a machine without such a port it looks for one now and then.
pub fn start(init: Init, image: ImageInfo, runtime: Handle) {
    thaw();
    let service = move || {
        let mut pauses = Backoff::secs(1, 60);
        loop {
            if let Some(device) = device(Path::new(PORTS)) {
                let mut host = Host {
                    init: init.clone(),
                    image: image.clone(),
                    runtime: runtime.clone(),
                    freezer: Freezer::new(Var, freeze::LONGEST),
                };
                // Leaving ends a freeze: the freezer goes with the host.
                let ended =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host.serve(&device)));
                match ended {
                    Ok(Err(e)) => tracing::warn!("guest agent: {}: {e}", device.display()),
                    Ok(Ok(())) => {}
                    Err(_) => tracing::error!("guest agent: it died and begins anew"),
                }
            }
            std::thread::sleep(pauses.pause());
        }
    };
    let started = std::thread::Builder::new()
        .name("guest".into())
        .spawn(service);
    if let Err(e) = started {
        tracing::error!("guest agent: no thread: {e}");
    }
}

/// Lets writes to `/var` go on, should an agent that ended have held them.
pub fn thaw() {
    match Var.open().and_then(|var| var.thaw()) {
        Ok(true) => tracing::warn!("/var was frozen, and is thawed"),
        Ok(false) => {}
        Err(e) => tracing::warn!("/var: {e}"),
    }
}

/// The port's device, by its name.
fn device(ports: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(ports).ok()?.flatten();
    entries
        .filter(|e| std::fs::read_to_string(e.path().join("name")).is_ok_and(|n| n.trim() == NAME))
        .map(|e| Path::new("/dev").join(e.file_name()))
        .next()
}

struct Host {
    init: Init,
    image: ImageInfo,
    runtime: Handle,
    freezer: Freezer<Var>,
}

impl Host {
    /// Answers until the port fails or goes away.
    fn serve(&mut self, device: &Path) -> io::Result<()> {
        let mut port = OpenOptions::new().read(true).write(true).open(device)?;
        tracing::info!("guest agent: answers at {}", device.display());
        let mut reader = Reader::default();
        let mut bytes = [0; 4096];
        loop {
            match port.read(&mut bytes) {
                Ok(0) => {
                    // The next host begins anew.
                    reader = Reader::default();
                    std::thread::sleep(NOBODY);
                }
                Ok(n) => {
                    for input in reader.take(&bytes[..n]) {
                        self.answer(&mut port, parse(input))?;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn answer(&mut self, port: &mut File, call: Call) -> io::Result<()> {
        let delimited = call.delimited();
        let outcome = match call.command {
            Ok(Command::Shutdown(how)) => match self.shutdown(how) {
                // Nothing is answered: the guest is going.
                Ok(()) => return Ok(()),
                Err(refusal) => Err(refusal),
            },
            Ok(command) => self.carry_out(command),
            Err(refusal) => Err(refusal),
        };
        port.write_all(&encode(&outcome, call.id.as_ref(), delimited))
    }

    fn carry_out(&mut self, command: Command) -> Outcome {
        match command {
            Command::Sync { id, .. } => Ok(json!(id)),
            Command::Ping | Command::Shutdown(_) => Ok(json!({})),
            Command::Info => command::info(&self.image.version),
            Command::OsInfo => facts::os(&self.image),
            Command::HostName => facts::host_name(),
            Command::Interfaces => facts::interfaces(),
            Command::FileSystems => facts::file_systems(),
            Command::Time => facts::time(),
            Command::Freeze => {
                let frozen = self.freezer.freeze();
                match &frozen {
                    Ok(_) => tracing::info!("guest agent: the host froze /var"),
                    Err(refusal) => tracing::warn!("guest agent: {refusal:?}"),
                }
                frozen
            }
            Command::Thaw => {
                let thawed = self.freezer.thaw();
                match &thawed {
                    Ok(_) => tracing::info!("guest agent: the host thawed /var"),
                    Err(refusal) => tracing::warn!("guest agent: {refusal:?}"),
                }
                thawed
            }
            Command::FreezeStatus => Ok(json!(if self.freezer.frozen() {
                "frozen"
            } else {
                "thawed"
            })),
        }
    }

    /// In order, through init. Services that stop write: nothing may be held.
    fn shutdown(&mut self, how: Shutdown) -> Result<(), Refusal> {
        let _ = self.freezer.thaw();
        let request = match how {
            Shutdown::PowerOff => InitRequest::PowerOff {
                reason: "asked for by the machine's host".into(),
            },
            Shutdown::Reboot => InitRequest::Reboot {
                reason: "asked for by the machine's host".into(),
                rescue: false,
            },
        };
        self.runtime
            .block_on(self.init.ask(request))
            .map(drop)
            .map_err(|e| Refusal::generic(format!("{e:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(device(&dir.path().join("none")), None);
        for (port, name) in [
            ("vport0p1", "com.redhat.spice.0\n"),
            ("vport0p2", "org.qemu.guest_agent.0\n"),
        ] {
            std::fs::create_dir(dir.path().join(port)).unwrap();
            std::fs::write(dir.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(device(dir.path()), Some("/dev/vport0p2".into()));
    }
}
