//! A lighthouse as a process of its own.

use crate::command::Holdfast;
use crate::until::until_some;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// `holdfast lighthouse run`; dropped, it is killed.
#[derive(Debug)]
pub struct LighthouseProcess {
    child: Child,
    /// What it logs.
    pub log: PathBuf,
}

impl LighthouseProcess {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// It ends at once, or does not listen within 20 s.
    pub fn start(holdfast: &Holdfast, dir: &Path, at: SocketAddr, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let dir = dir.to_string_lossy().into_owned();
        let child = holdfast
            .command(["lighthouse", "run", "--dir", &dir])
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("start the lighthouse")?;
        let mut this = Self {
            child,
            log: log.to_path_buf(),
        };
        until_some("the lighthouse listens", Duration::from_secs(20), || {
            if let Ok(Some(status)) = this.child.try_wait() {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("it ended: {status}\n{said}"));
            }
            TcpStream::connect(at).map(drop).map_err(|e| e.to_string())
        })?;
        Ok(this)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for LighthouseProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
