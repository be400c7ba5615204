use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::args::{Prepared, command_line};
use crate::console::{Console, Waited};
use crate::disk::Disk;
use crate::error::{Error, Result, Scene, io};
use crate::firmware::Firmware;
use crate::guest::GuestAgent;
use crate::home::{Home, blank_disk, first_disk};
use crate::qmp::Qmp;
use crate::raspi;
use crate::spec::{Card, MachineSpec};

/// A virtual machine that can be powered on and off any number of times; its disk and firmware
/// variables stay. Dropping it cuts its power.
#[derive(Debug)]
pub struct Machine {
    spec: MachineSpec,
    home: Home,
    disk: Option<Disk>,
    second: Option<Disk>,
    unplugged: bool,
    console: Console,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    qmp: Qmp,
    since: Instant,
    guest_agent: PathBuf,
    /// Sockets live here: their paths may not exceed 107 bytes.
    _sockets: tempfile::TempDir,
}

impl Machine {
    /// Makes the machine's directory and disk; it stays off.
    ///
    /// # Errors
    /// A missing image, missing firmware, or files that cannot be made.
    pub fn create(spec: MachineSpec) -> Result<Self> {
        let home = Home::make(spec.dir.as_deref())?;
        let disk = first_disk(&spec, home.path())?;
        let second = match spec.second {
            Some((bytes, _)) => Some(blank_disk(&home.path().join("second.img"), bytes)?),
            None => None,
        };
        if spec.kernel.is_none() && !spec.platform.is_raspi() {
            let vars = home.path().join("vars.fd");
            if !vars.exists() {
                let template = Firmware::find(spec.platform)?.vars;
                std::fs::copy(&template, &vars).map_err(io("copy", &template))?;
            }
        }
        let console = Console::new(home.path().join("console.log"));
        Ok(Self {
            spec,
            home,
            disk,
            second,
            unplugged: false,
            console,
            running: None,
        })
    }

    /// Creates the machine and powers it on.
    ///
    /// # Errors
    /// As [`Machine::create`] and [`Machine::power_on`].
    pub fn start(spec: MachineSpec) -> Result<Self> {
        let mut machine = Self::create(spec)?;
        machine.power_on()?;
        Ok(machine)
    }

    /// Powers the machine on.
    ///
    /// # Errors
    /// It is on already, QEMU is missing, or QEMU refuses (a port taken, a file locked): its own
    /// words are in the error.
    pub fn power_on(&mut self) -> Result<()> {
        if self.is_on() {
            return Err(Error::On(self.spec.name.clone()));
        }
        let platform = self.spec.platform;
        let kvm = self.spec.accel.wants_kvm(platform)?;
        let sockets = tempfile::Builder::new()
            .prefix("hf-qmp-")
            .tempdir()
            .map_err(io("make a directory in", std::env::temp_dir()))?;
        let home = self.home.path();
        let prepared = Prepared {
            kvm,
            raspi: match self.disk.as_ref().filter(|_| platform.is_raspi()) {
                Some(card) => Some(raspi::load(platform, card, home)?),
                None => None,
            },
            firmware: match self.spec.kernel {
                Some(_) => None,
                None if platform.is_raspi() => None,
                None => Some(Firmware {
                    code: Firmware::find(platform)?.code,
                    vars: home.join("vars.fd"),
                }),
            },
            disk: self.disk.as_ref().filter(|_| !self.unplugged).map(on_line),
            second: self.second.as_ref().map(on_line),
            record: self.spec.record.as_deref().map(recorder).transpose()?,
            console: self.console.path().to_owned(),
            qmp: sockets.path().join("qmp"),
            guest_agent: sockets.path().join("qga"),
            link_sockets: (0..self.spec.links.len())
                .map(|i| sockets.path().join(format!("link{i}")))
                .collect(),
        };
        let args = command_line(&self.spec, &prepared)?;
        let errors = home.join("qemu.stderr");
        let stderr = File::create(&errors).map_err(io("make", &errors))?;
        let since = Instant::now();
        let mut child = Command::new(platform.program())
            .args(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(|_| Error::MissingProgram {
                program: platform.program().into(),
                package: platform.package(),
            })?;
        match Qmp::connect(&prepared.qmp, || matches!(child.try_wait(), Ok(None))) {
            Ok(qmp) => {
                self.running = Some(Running {
                    child,
                    qmp,
                    since,
                    guest_agent: prepared.guest_agent,
                    _sockets: sockets,
                });
                Ok(())
            }
            Err(error) => {
                let _ = child.kill();
                match child.wait() {
                    Ok(status) if status.code().is_some() => {
                        Err(self.exited(status.to_string(), "power-on"))
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// Pulls the plug: QEMU gets SIGKILL. What the machine had not flushed may be lost.
    ///
    /// # Errors
    /// The machine is off.
    pub fn power_cut(&mut self) -> Result<()> {
        let mut running = self
            .running
            .take()
            .ok_or_else(|| Error::Off(self.spec.name.clone()))?;
        running
            .child
            .kill()
            .and_then(|()| running.child.wait())
            .map_err(io("end QEMU of", self.home.path()))?;
        Ok(())
    }

    /// The reset button.
    ///
    /// # Errors
    /// The machine is off, or QEMU refuses.
    pub fn reset(&mut self) -> Result<()> {
        self.qmp()?.execute("system_reset", Value::Null).map(drop)
    }

    /// The power button (ACPI): the guest may react.
    ///
    /// # Errors
    /// The machine is off, or QEMU refuses.
    pub fn power_button(&mut self) -> Result<()> {
        self.qmp()?
            .execute("system_powerdown", Value::Null)
            .map(drop)
    }

    /// Stops the virtual CPUs: the machine hangs, its watchdog too.
    ///
    /// # Errors
    /// The machine is off, or QEMU refuses.
    pub fn pause(&mut self) -> Result<()> {
        self.qmp()?.execute("stop", Value::Null).map(drop)
    }

    /// Lets a paused machine go on.
    ///
    /// # Errors
    /// The machine is off, or QEMU refuses.
    pub fn resume(&mut self) -> Result<()> {
        self.qmp()?.execute("cont", Value::Null).map(drop)
    }

    /// Pulls the cable out of a network card, or plugs it in.
    ///
    /// # Errors
    /// The machine is off, or has no such card.
    pub fn set_cable(&mut self, card: Card, plugged: bool) -> Result<()> {
        let name = match card {
            Card::User => "net0".to_owned(),
            Card::Second => "second".to_owned(),
            // numbered from 1
            Card::Link(number) => format!("link{}", number + 1),
        };
        self.qmp()?
            .execute(
                "set_link",
                serde_json::json!({ "name": name, "up": plugged }),
            )
            .map(drop)
    }

    /// QEMU's run state, for example `running`, `paused`, `shutdown`.
    ///
    /// # Errors
    /// The machine is off, or QEMU does not answer.
    pub fn status(&mut self) -> Result<String> {
        let answer = self.qmp()?.execute("query-status", Value::Null)?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Anything else that QEMU's control socket can do.
    ///
    /// # Errors
    /// The machine is off.
    pub fn qmp(&mut self) -> Result<&mut Qmp> {
        match &mut self.running {
            Some(running) => Ok(&mut running.qmp),
            None => Err(Error::Off(self.spec.name.clone())),
        }
    }

    /// A conversation with the guest agent, for a machine described with one; `limit` is for each
    /// of its answers, the first included.
    ///
    /// # Errors
    /// The machine is off, has no such port, or nothing answers there.
    pub fn guest_agent(&mut self, limit: Duration) -> Result<GuestAgent> {
        match &self.running {
            Some(running) => GuestAgent::connect(&running.guest_agent, limit),
            None => Err(Error::Off(self.spec.name.clone())),
        }
    }

    /// Waits for `marker` on the console, behind what earlier waits found. Returns the time since
    /// power-on.
    ///
    /// # Errors
    /// [`Error::Timeout`] or [`Error::Exited`], with the log's last lines.
    pub fn wait_for(&mut self, marker: &str, limit: Duration) -> Result<Duration> {
        self.wait_for_any(&[marker], limit).map(|(_, at)| at)
    }

    /// Waits for one of `markers`; returns the index of the one that came first.
    ///
    /// # Errors
    /// As [`Machine::wait_for`].
    pub fn wait_for_any(&mut self, markers: &[&str], limit: Duration) -> Result<(usize, Duration)> {
        let running = self
            .running
            .as_mut()
            .ok_or_else(|| Error::Off(self.spec.name.clone()))?;
        match self.console.wait(markers, limit, || {
            matches!(running.child.try_wait(), Ok(None))
        }) {
            Waited::Found(i) => Ok((i, running.since.elapsed())),
            Waited::TimedOut => Err(Error::Timeout {
                limit,
                scene: self.scene(markers.join(" | ")),
            }),
            Waited::Dead => {
                let status = running
                    .child
                    .wait()
                    .map_or_else(|e| e.to_string(), |s| s.to_string());
                Err(self.exited(status, &markers.join(" | ")))
            }
        }
    }

    /// Waits until QEMU ends by itself: a guest that powered off, or rebooted under `no_reboot`.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it is still running.
    pub fn wait_off(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.is_on() {
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    limit,
                    scene: self.scene("power-off".to_owned()),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.running = None;
        Ok(())
    }

    /// Whether QEMU is running.
    pub fn is_on(&mut self) -> bool {
        self.running
            .as_mut()
            .is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// Time since the last power-on, if the machine is on.
    pub fn uptime(&self) -> Option<Duration> {
        self.running.as_ref().map(|running| running.since.elapsed())
    }

    /// QEMU's process id, if it is on.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// The console.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    /// The disk; look at it and change it only while the machine is off.
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// The second disk, likewise.
    pub fn second_disk(&self) -> Option<&Disk> {
        self.second.as_ref()
    }

    /// From the next power-on the first disk is out of the machine, or in it again.
    pub fn unplug_disk(&mut self, out: bool) {
        self.unplugged = out;
    }

    /// The directory with disk, firmware variables and logs.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    fn exited(&self, status: String, waiting: &str) -> Error {
        let stderr = std::fs::read_to_string(self.home.path().join("qemu.stderr"));
        Error::Exited {
            status,
            stderr: stderr.unwrap_or_default().trim().to_owned(),
            scene: self.scene(waiting.to_owned()),
        }
    }

    fn scene(&self, waiting: String) -> Box<Scene> {
        Box::new(Scene {
            machine: self.spec.name.clone(),
            waiting,
            log: self.console.path().to_owned(),
            tail: self.console.tail(30),
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = self.power_cut();
        }
        if std::thread::panicking() {
            self.home.keep();
            eprintln!(
                "{}: console log of the failed test kept: {}",
                self.spec.name,
                self.console.path().display()
            );
            eprintln!("{}", self.console.tail(40));
        }
    }
}

/// The record of a disk's writes, made when it is not there, and whether something is in it.
fn recorder(log: &Path) -> Result<(PathBuf, bool)> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(io("make", log))?;
    let len = file.metadata().map_err(io("measure", log))?.len();
    Ok((log.to_owned(), len > 0))
}

fn on_line(disk: &Disk) -> (PathBuf, &'static str) {
    (disk.path().to_owned(), disk.format().name())
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// Where none can be bound.
pub fn free_tcp_port() -> Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .map_err(io("bind", "127.0.0.1:0"))
}
