//! Where `holdfast vm` keeps machines: one folder each, with its disk, console log and `vm.json`.

use crate::exit::Exit;
use crate::files;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `vm.json`: how a machine was started last, and who runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its name.
    pub name: String,
    /// The image that its disk is an overlay of.
    pub image: PathBuf,
    /// The image's length and time of change: an overlay over other bytes is no disk.
    pub stamp: Stamp,
    /// The seed handed to it, if any.
    pub seed: Option<PathBuf>,
    /// Memory in MiB.
    pub memory: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Where its console goes.
    pub console: PathBuf,
    /// The `holdfast vm run` that holds it; none once it ended.
    pub holder: Option<Process>,
    /// QEMU itself.
    pub qemu: Option<Process>,
}

/// What tells an image from a later one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// In bytes.
    pub len: u64,
    /// Nanoseconds since 1970.
    pub changed: u64,
}

impl Stamp {
    /// Of the file at `path`.
    pub fn of(path: &Path) -> Result<Self> {
        let what = || format!("cannot read {}", path.display());
        let meta = std::fs::metadata(path).with_context(what)?;
        let changed = meta
            .modified()
            .with_context(what)?
            .duration_since(std::time::UNIX_EPOCH);
        let changed = changed.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        Ok(Self {
            len: meta.len(),
            changed,
        })
    }
}

/// A process that cannot be taken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its start, in clock ticks since this machine's boot (proc_pid_stat(5), field 22).
    pub start: u64,
}

impl Process {
    /// The process with id `pid`, if it lives.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name may hold spaces and brackets: count behind its end.
        let rest = stat.get(stat.rfind(')')? + 1..)?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, start })
    }

    /// Whether it still lives.
    pub fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends it a signal, if it still lives.
    pub fn signal(self, signal: nix::sys::signal::Signal) -> Result<()> {
        if !self.lives() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid).context("process id")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)
            .with_context(|| format!("cannot signal process {pid}"))
    }
}

impl VmRecord {
    /// Whether the machine is on.
    pub fn on(&self) -> bool {
        self.qemu.is_some_and(Process::lives)
    }
}

/// The folder of all machines.
#[derive(Debug, Clone)]
pub struct Vms(PathBuf);

impl Vms {
    /// `dir`, else `$XDG_STATE_HOME/holdfast/vms`, else `~/.local/state/holdfast/vms`.
    pub fn at(dir: Option<&Path>) -> Result<Self> {
        if let Some(dir) = dir {
            return Ok(Self(dir.to_path_buf()));
        }
        let var = |name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let state = var("XDG_STATE_HOME").or_else(|| var("HOME").map(|h| h.join(".local/state")));
        let state = state.ok_or_else(|| {
            Exit::Usage.error("neither XDG_STATE_HOME nor HOME is set: give --dir DIR")
        })?;
        Ok(Self(state.join("holdfast/vms")))
    }

    /// A machine's folder.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is known of a machine.
    pub fn read(&self, name: &str) -> Result<Option<VmRecord>> {
        let path = self.dir(name).join("vm.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is damaged", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// As [`Self::read`], for a machine that must be there.
    pub fn known(&self, name: &str) -> Result<VmRecord> {
        self.read(name)?.ok_or_else(|| {
            Exit::Failed.error(format!(
                "no machine is called {name}: `holdfast vm list` shows all"
            ))
        })
    }

    /// Keeps what is known of a machine.
    pub fn write(&self, record: &VmRecord) -> Result<()> {
        let dir = self.dir(&record.name);
        files::make_private_dir(&dir)?;
        files::write_public(&dir.join("vm.json"), &serde_json::to_vec_pretty(record)?)
    }

    /// All machines, by name.
    pub fn all(&self) -> Result<Vec<VmRecord>> {
        let Ok(entries) = std::fs::read_dir(&self.0) else {
            return Ok(vec![]);
        };
        let mut all = vec![];
        for entry in entries.flatten() {
            if let Some(name) = entry.file_name().to_str()
                && let Some(record) = self.read(name)?
            {
                all.push(record);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.lives());
        assert!(
            !Process {
                start: own.start + 1,
                ..own
            }
            .lives()
        );
        assert!(Process::of(u32::MAX).is_none());
    }

    #[test]
    fn records_are_kept_and_listed() {
        let tmp = tempfile::tempdir().unwrap();
        let vms = Vms::at(Some(&tmp.path().join("vms"))).unwrap();
        assert!(vms.all().unwrap().is_empty());
        assert_eq!(crate::exit::code_of(&vms.known("n1").unwrap_err()), 1);
        let record = VmRecord {
            name: "n1".into(),
            image: "/i".into(),
            stamp: Stamp { len: 0, changed: 0 },
            seed: None,
            memory: 1,
            cpus: 1,
            console: "/c".into(),
            holder: None,
            qemu: None,
        };
        vms.write(&record).unwrap();
        assert_eq!(vms.all().unwrap(), std::slice::from_ref(&record));
        assert!(!record.on());
    }
}
