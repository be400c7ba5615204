//! Running a tool of the root to its end while the watchdog is fed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys::spawn::{Launch, spawn};

/// A check of a large and broken disk may take long; no longer than this.
const LIMIT: Duration = Duration::from_secs(1800);

/// Runs tools one after the other.
pub struct Tools<'a> {
    meanwhile: &'a mut dyn FnMut(),
}

impl<'a> Tools<'a> {
    /// `meanwhile` is called many times a second while a tool runs.
    pub fn new(meanwhile: &'a mut dyn FnMut()) -> Self {
        Self { meanwhile }
    }

    /// Runs `argv` and returns its exit code.
    pub fn run(&mut self, argv: &[&str]) -> Result<i32> {
        let Some(program) = argv.first() else {
            bail!("no program named")
        };
        let words: Vec<String> = argv.iter().map(|&w| w.to_owned()).collect();
        let env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        let launch = Launch {
            program: Path::new(program),
            argv: &words,
            env: &env,
            cgroup: None,
            output: None,
            pass: &[],
        };
        let pid = spawn(launch).with_context(|| format!("start {program}"))?;
        let pid = Pid::from_raw(i32::try_from(pid).context("process id")?);
        let began = Instant::now();
        loop {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG))
                .with_context(|| format!("wait for {program}"))?
            {
                WaitStatus::Exited(_, code) => return Ok(code),
                WaitStatus::Signaled(_, signal, _) => bail!("{program} was ended by {signal}"),
                _ => {}
            }
            if began.elapsed() > LIMIT {
                let _ = kill(pid, Signal::SIGKILL);
                bail!("{program} took longer than {LIMIT:?}");
            }
            (self.meanwhile)();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
