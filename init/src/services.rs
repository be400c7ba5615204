//! The supervised processes: agent, log, and what recipe and agent add.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_core::image::ServiceSpec;
use holdfast_core::ipc::ServiceState;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::kmsg;
use crate::policy::Backoff;
use crate::sys::spawn::{Launch, spawn};

/// The agent's name, and its cgroup's.
pub const AGENT: &str = "agent";
/// The log child's.
pub const LOG: &str = "log";
/// Where each service's output goes; the log child reads it. A FIFO that init keeps open: neither
/// end's death is felt by the other.
pub const OUTPUT_DIRECTORY: &str = "/run/holdfast/log";
const CGROUPS: &str = "/sys/fs/cgroup";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOME: &str = "HOME=/var/lib/holdfast";
/// How long a service may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What is executed: a path, or a program that lies under the root.
#[derive(Debug)]
pub enum Program {
    /// The first word of the service's command.
    InRoot,
    /// A descriptor of a program in the initramfs.
    Kept(OwnedFd),
    /// Init's own.
    Myself,
}

#[derive(Debug)]
struct Service {
    spec: ServiceSpec,
    program: Program,
    pass: Vec<OwnedFd>,
    output: Option<File>,
    wanted: bool,
    running: Option<Running>,
    next_start: Duration,
    backoff: Backoff,
    starts: u32,
    last_exit: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    pid: u32,
    since: Duration,
    /// When it gets SIGKILL, once it was asked to stop.
    kill_at: Option<Duration>,
}

/// What happened to a service: what the vigil wants to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A process was started for this service.
    Started(String),
    /// It ended.
    Ended(String),
}

/// All services.
#[derive(Debug, Default)]
pub struct Services(BTreeMap<String, Service>);

impl Services {
    /// Adds a service that init itself needs.
    pub fn add(&mut self, spec: ServiceSpec, program: Program, pass: Vec<OwnedFd>) {
        let name = spec.name.clone();
        let service = Service {
            spec,
            program,
            pass,
            output: None,
            wanted: true,
            running: None,
            next_start: Duration::ZERO,
            backoff: Backoff::default(),
            starts: 0,
            last_exit: None,
        };
        self.0.insert(name, service);
    }

    /// Starts a service that recipe or agent describe, or replaces it where its description changed.
    pub fn start(&mut self, spec: ServiceSpec, now: Duration) -> Result<(), String> {
        check(&spec)?;
        match self.0.get_mut(&spec.name) {
            None => self.add(spec, Program::InRoot, Vec::new()),
            Some(service) => {
                if service.spec != spec {
                    service.spec = spec;
                    service.stop(now);
                }
                service.wanted = true;
                service.next_start = now;
            }
        }
        Ok(())
    }

    /// Stops a service and leaves it stopped.
    pub fn stop(&mut self, name: &str, now: Duration) -> Result<(), String> {
        if name == AGENT || name == LOG {
            return Err(format!(
                "service {name} is part of the system and cannot be stopped"
            ));
        }
        let service = self
            .0
            .get_mut(name)
            .ok_or_else(|| format!("no service called {name:?}"))?;
        service.wanted = false;
        service.stop(now);
        Ok(())
    }

    /// Asks every service but `keep` to stop.
    pub fn stop_all(&mut self, keep: &[&str], now: Duration) {
        for (name, service) in &mut self.0 {
            if !keep.contains(&name.as_str()) {
                service.wanted = false;
                service.stop(now);
            }
        }
    }

    /// Whether a service but `keep` has a process.
    pub fn any_running(&self, keep: &[&str]) -> bool {
        self.0
            .iter()
            .any(|(name, service)| service.running.is_some() && !keep.contains(&name.as_str()))
    }

    /// Kills a service's main process; it is started again.
    pub fn kill(&self, name: &str) {
        if let Some(running) = self.0.get(name).and_then(|s| s.running) {
            signal(running.pid, Signal::SIGKILL);
        }
    }

    /// Starts what is due and kills what did not stop in time. While `held`, nothing out of the root
    /// is started.
    pub fn tick(&mut self, now: Duration, held: bool) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, service) in &mut self.0 {
            match service.running {
                Some(Running {
                    pid,
                    kill_at: Some(at),
                    ..
                }) if now >= at => {
                    kmsg::warning(format_args!("{name} did not stop, killing it"));
                    signal(pid, Signal::SIGKILL);
                    service.running = service.running.map(|r| Running {
                        kill_at: Some(now + STOP_LIMIT),
                        ..r
                    });
                }
                None if service.may_start(held) && now >= service.next_start => {
                    match service.launch() {
                        Ok(pid) => {
                            service.running = Some(Running {
                                pid,
                                since: now,
                                kill_at: None,
                            });
                            service.starts = service.starts.saturating_add(1);
                            events.push(Event::Started(name.clone()));
                        }
                        Err(error) => {
                            kmsg::error(format_args!("{name}: {error:#}"));
                            service.last_exit = Some(format!("{error:#}"));
                            service.next_start = now + service.backoff.ended(Duration::ZERO);
                        }
                    }
                }
                _ => {}
            }
        }
        events
    }

    /// The next moment at which [`Services::tick`] has something to do.
    pub fn next_due(&self, held: bool) -> Option<Duration> {
        self.0
            .values()
            .filter_map(|service| match service.running {
                Some(running) => running.kill_at,
                None => service.may_start(held).then_some(service.next_start),
            })
            .min()
    }

    /// A child was reaped.
    pub fn reaped(&mut self, status: WaitStatus, now: Duration) -> Option<Event> {
        let pid = u32::try_from(status.pid()?.as_raw()).ok()?;
        let how = match status {
            WaitStatus::Exited(_, code) => format!("exit code {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("{signal}"),
            _ => return None,
        };
        let (name, service) = self
            .0
            .iter_mut()
            .find(|(_, s)| s.running.is_some_and(|r| r.pid == pid))?;
        let running = service.running.take()?;
        let ran = now.saturating_sub(running.since);
        let wait = service.backoff.ended(ran);
        if running.kill_at.is_some() {
            // It was asked to: no failure.
            service.next_start = now;
            service.backoff = Backoff::default();
        } else {
            kmsg::warning(format_args!(
                "{name} ended ({how}) after {} s",
                ran.as_secs()
            ));
            service.next_start = now + wait;
        }
        if !service.spec.keep_children {
            // Leftovers of a service that is gone would hold its ports and files.
            let _ = std::fs::write(cgroup(name).join("cgroup.kill"), "1");
        }
        service.last_exit = Some(how);
        Some(Event::Ended(name.clone()))
    }

    /// As operators see them.
    pub fn states(&self) -> Vec<ServiceState> {
        let state = |(name, service): (&String, &Service)| ServiceState {
            name: name.clone(),
            pid: service.running.map(|r| r.pid),
            starts: service.starts,
            last_exit: service.last_exit.clone(),
        };
        self.0.iter().map(state).collect()
    }
}

/// A name that is safe as a file's, and a program to run.
fn check(spec: &ServiceSpec) -> Result<(), String> {
    let name = &spec.name;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        return Err(format!(
            "service name {name:?}: use 1 to 32 of a-z, 0-9 and -"
        ));
    }
    if [AGENT, LOG, "init", "kernel"].contains(&name.as_str()) {
        return Err(format!("service name {name:?} is taken by the system"));
    }
    match spec.exec.first() {
        Some(program) if program.starts_with('/') => Ok(()),
        other => Err(format!(
            "service {name}: {other:?} is not an absolute path of a program"
        )),
    }
}

fn cgroup(name: &str) -> PathBuf {
    Path::new(CGROUPS).join(name)
}

fn signal(pid: u32, what: Signal) {
    // A process that is gone needs no signal.
    let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), what));
}

impl Service {
    fn may_start(&self, held: bool) -> bool {
        self.wanted && !(held && matches!(self.program, Program::InRoot))
    }

    fn stop(&mut self, now: Duration) {
        if let Some(running) = &mut self.running
            && running.kill_at.is_none()
        {
            signal(running.pid, Signal::SIGTERM);
            running.kill_at = Some(now + STOP_LIMIT);
        }
    }

    fn launch(&mut self) -> Result<u32> {
        let name = &self.spec.name;
        if self.output.is_none() && name != LOG {
            self.output = Some(open_fifo(name)?);
        }
        let group = cgroup(name);
        let _ = std::fs::create_dir(&group);
        let procs = OpenOptions::new()
            .write(true)
            .open(group.join("cgroup.procs"))
            .ok();
        let program = match &self.program {
            Program::InRoot => self
                .spec
                .exec
                .first()
                .map(PathBuf::from)
                .context("no program named")?,
            // Resolved between fork and exec, in a child that still has the descriptor.
            Program::Kept(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            Program::Myself => PathBuf::from("/proc/self/exe"),
        };
        let mut env = vec![PATH.to_owned(), HOME.to_owned()];
        env.extend(self.spec.env.iter().cloned());
        let output = self
            .output
            .as_ref()
            .map(|f| f.as_fd().try_clone_to_owned())
            .transpose()
            .context("copy the output")?;
        let pass: Vec<_> = self.pass.iter().map(OwnedFd::as_fd).collect();
        let launch = Launch {
            program: &program,
            argv: &self.spec.exec,
            env: &env,
            cgroup: procs,
            output,
            pass: &pass,
        };
        let pid = spawn(launch).with_context(|| format!("start {:?}", self.spec.exec))?;
        if matches!(self.program, Program::Kept(_) | Program::Myself) {
            // When memory runs out the node's way home goes last.
            let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "-900");
        }
        Ok(pid)
    }
}

/// The service's output, open for reading and writing: it neither blocks on open nor ever breaks.
fn open_fifo(name: &str) -> Result<File> {
    let path = Path::new(OUTPUT_DIRECTORY).join(name);
    std::fs::create_dir_all(OUTPUT_DIRECTORY)
        .with_context(|| format!("make {OUTPUT_DIRECTORY}"))?;
    match nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_CLOEXEC)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, exec: &str) -> ServiceSpec {
        ServiceSpec {
            name: name.into(),
            exec: vec![exec.into()],
            env: vec![],
            keep_children: false,
            delegate: false,
        }
    }

    #[test]
    fn names_are_files_and_not_the_systems() {
        assert!(check(&spec("k3s", "/usr/bin/k3s")).is_ok());
        for (name, exec) in [
            ("../x", "/x"),
            ("", "/x"),
            ("agent", "/x"),
            ("kernel", "/x"),
            ("k3s", "k3s"),
        ] {
            assert!(check(&spec(name, exec)).is_err(), "{name} {exec}");
        }
    }

    #[test]
    fn while_held_only_the_system_is_due() {
        let mut services = Services::default();
        services.add(spec("k3s", "/usr/bin/k3s"), Program::InRoot, vec![]);
        assert_eq!(services.next_due(true), None);
        assert_eq!(services.tick(Duration::ZERO, true), []);
        assert_eq!(services.next_due(false), Some(Duration::ZERO));
        services.add(spec(LOG, "log"), Program::Myself, vec![]);
        assert_eq!(services.next_due(true), Some(Duration::ZERO));
    }

    #[test]
    fn the_system_cannot_be_stopped_by_name() {
        let mut services = Services::default();
        services.add(spec(AGENT, "agent"), Program::InRoot, vec![]);
        assert!(
            services
                .stop(AGENT, Duration::ZERO)
                .unwrap_err()
                .contains("part of the system")
        );
        assert!(services.stop("nobody", Duration::ZERO).is_err());
    }
}
