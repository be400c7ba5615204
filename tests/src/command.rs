//! The `holdfast` command as a person runs it.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The passphrase of every cluster that stories make.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// `holdfast` with a cluster's directory and passphrase set.
#[derive(Debug, Clone)]
pub struct Holdfast {
    cluster: Option<PathBuf>,
    home: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The checkout's top folder.
#[must_use]
pub fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The command that `make build` made.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("HOLDFAST")
        .map_or_else(|| top().join("target/release/holdfast"), PathBuf::from)
}

impl Holdfast {
    /// Runs in `home`, which no other story uses.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self {
            cluster: None,
            home: home.to_path_buf(),
        }
    }

    /// For the cluster in `dir`.
    #[must_use]
    pub fn cluster(&self, dir: &Path) -> Self {
        Self {
            cluster: Some(dir.to_path_buf()),
            ..self.clone()
        }
    }

    /// The command with `args`, not started.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .current_dir(top())
            .env("HOLDFAST_PASSPHRASE", PASSPHRASE)
            .env("XDG_STATE_HOME", &self.home)
            .stdin(Stdio::null());
        if let Some(dir) = &self.cluster {
            command.env("HOLDFAST_CLUSTER", dir);
        }
        command
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Outcome> {
        let mut command = self.command(args);
        let output = command
            .output()
            .with_context(|| format!("{}: run `make build`", binary().display()))?;
        Ok(Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and wants success.
    ///
    /// # Errors
    /// Another exit code; what it printed is in the error.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let args: Vec<S> = args.into_iter().collect();
        let shown: Vec<_> = args
            .iter()
            .map(|a| a.as_ref().to_string_lossy().into_owned())
            .collect();
        let out = self.try_run(args)?;
        if out.code != 0 {
            bail!(
                "holdfast {}: exit {}\n{}{}",
                shown.join(" "),
                out.code,
                out.stdout,
                out.stderr
            );
        }
        Ok(out.stdout)
    }

    /// Runs it with `--output json`.
    ///
    /// # Errors
    /// As [`Holdfast::run`], or the output is no JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(args.iter().copied().chain(["--output", "json"]))?;
        serde_json::from_str(&text)
            .with_context(|| format!("holdfast {}: no JSON: {text}", args.join(" ")))
    }
}
