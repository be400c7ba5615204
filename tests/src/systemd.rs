//! A Linux machine with systemd, in namespaces: for what `holdfast` does on a machine that is no
//! node. Needs root, and systemd on the disk of the machine that tests.

use crate::command::binary;
use crate::until::{until, until_some};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const BOOT: Duration = Duration::from_secs(60);

/// The machine; ended when dropped.
#[derive(Debug)]
pub struct SystemdMachine {
    child: Child,
    pid_file: PathBuf,
    cgroup: PathBuf,
}

impl SystemdMachine {
    /// Starts it in the network namespace `place`; `dir` is an empty folder of its own. `resolved`:
    /// the Debian package of systemd-resolved, for a host that has none.
    ///
    /// # Errors
    /// What it needs is missing; it does not come up.
    pub fn start(place: &str, dir: &Path, resolved: Option<&Path>) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let unified = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let at = words.next()?;
            (words.next()? == "cgroup2").then(|| PathBuf::from(at))
        });
        let cgroup = unified.context("no cgroup2 is mounted")?.join(place);
        std::fs::create_dir(&cgroup).with_context(|| cgroup.display().to_string())?;
        let memory = dir.join("memory");
        std::fs::create_dir_all(&memory)?;
        let (pid_file, log) = (dir.join("pid"), File::create(dir.join("console.log"))?);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/systemd-machine.sh");
        let mut command = Command::new(script);
        command
            .arg("run")
            .args([&memory, &cgroup])
            .arg(place)
            .env("PID_FILE", &pid_file)
            .env("HOLDFAST", binary())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(package) = resolved {
            command.env("RESOLVED", package);
        }
        let this = Self {
            child: command.spawn().context("the machine's script")?,
            pid_file,
            cgroup,
        };
        this.booted()?;
        Ok(this)
    }

    /// Its PID 1.
    fn pid(&self) -> Result<u32> {
        let text = std::fs::read_to_string(&self.pid_file).context("it has not begun")?;
        Ok(text.trim().parse()?)
    }

    fn booted(&self) -> Result<()> {
        until_some("systemd is up", BOOT, || {
            let state = self.run("systemctl is-system-running");
            let state = state.map_err(|e| format!("{e:#}"))?;
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            match state.trim() {
                "running" | "degraded" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
    }

    /// A file of its, seen from outside.
    ///
    /// # Errors
    /// It does not run.
    pub fn path(&self, inside: &str) -> Result<PathBuf> {
        Ok(format!("/proc/{}/root{inside}", self.pid()?).into())
    }

    /// Runs a command line there, as root.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self, line: &str) -> Result<Output> {
        let pid = self.pid()?.to_string();
        let done = Command::new("nsenter")
            .args(["-t", &pid, "-m", "-p", "-n", "-u", "-i", "-C", "--root"])
            .args(["env", "-i", "-C", "/root", "HOME=/root"])
            .arg("PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .output();
        done.context("nsenter")
    }

    /// Runs a command line there and wants success; what it printed.
    ///
    /// # Errors
    /// Another exit code; what it said is in the error.
    pub fn ok(&self, line: &str) -> Result<String> {
        let done = self.run(line)?;
        let (out, err) = (done.stdout, String::from_utf8_lossy(&done.stderr));
        let out = String::from_utf8_lossy(&out).into_owned();
        ensure!(done.status.success(), "{line}: {}\n{out}{err}", done.status);
        Ok(out)
    }

    /// Reboots it.
    ///
    /// # Errors
    /// It does not come back.
    pub fn reboot(&self) -> Result<()> {
        let before = self.pid()?;
        // The command's own namespace goes with it: how it ends says nothing.
        self.run("systemctl reboot")?;
        until("another PID 1", BOOT, || {
            self.pid().is_ok_and(|now| now != before)
        })?;
        self.booted()
    }
}

impl Drop for SystemdMachine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // All of its processes are gone a moment later.
        let _ = until("its control groups are empty", BOOT, || {
            remove(&self.cgroup).is_ok()
        });
    }
}

/// Removes a control group and those below.
fn remove(group: &Path) -> Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    match std::fs::remove_dir(group) {
        Err(e) => bail!("{}: {e}", group.display()),
        Ok(()) => Ok(()),
    }
}
