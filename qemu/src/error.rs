use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong with a machine, its disk or its console.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error("{program} not found: install Debian's package {package} (apt-get install {package})")]
    MissingProgram {
        /// The program looked for in `PATH`.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The UEFI firmware is not installed.
    #[error(
        "no UEFI firmware among {tried:?}: install Debian's package {package} (apt-get install {package})"
    )]
    MissingFirmware {
        /// The Debian package that has it.
        package: &'static str,
        /// The paths that were looked at.
        tried: Vec<PathBuf>,
    },
    /// The disk image named does not exist.
    #[error("no disk image at {0}: build one first (holdfast build --board BOARD --recipe RECIPE)")]
    MissingImage(PathBuf),
    /// A file could not be read, written or made.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done, as a verb with its object.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A card that a Raspberry Pi's firmware would not start from.
    #[error("{0}: {1}")]
    NotBootable(PathBuf, String),
    /// A helper program failed.
    #[error("{program} {args:?} failed ({status}): {stderr}")]
    Program {
        /// The program.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its exit status.
        status: String,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// A path holds a character that QEMU's option syntax gives a meaning to.
    #[error(
        "path {0} holds a comma or is not UTF-8, which QEMU's options cannot carry: move the file"
    )]
    BadPath(PathBuf),
    /// QEMU ended while something was expected of it.
    #[error("{}: QEMU ended ({status}) while waiting for {:?}; its errors: {stderr}; {scene}", scene.machine, scene.waiting)]
    Exited {
        /// QEMU's exit status.
        status: String,
        /// What QEMU wrote to standard error.
        stderr: String,
        /// What was expected, and the console's last lines.
        scene: Box<Scene>,
    },
    /// A marker did not appear on the console in time.
    #[error("{}: no {:?} on the console within {limit:?}; {scene}", scene.machine, scene.waiting)]
    Timeout {
        /// How long.
        limit: Duration,
        /// What was expected, and the console's last lines.
        scene: Box<Scene>,
    },
    /// The machine is off.
    #[error("{0} is powered off")]
    Off(String),
    /// The machine is on.
    #[error("{0} is powered on")]
    On(String),
    /// QEMU's control socket gave an error or nonsense.
    #[error("QMP {command}: {message}")]
    Qmp {
        /// The command sent.
        command: String,
        /// What came back.
        message: String,
    },
    /// KVM was demanded and does not run guests here.
    #[error("KVM was asked for but a probe guest did not run under it: {0}")]
    NoKvm(String),
}

/// What a wait that failed leaves to look at.
#[derive(Debug)]
pub struct Scene {
    /// The machine.
    pub machine: String,
    /// What was being waited for.
    pub waiting: String,
    /// The console log.
    pub log: PathBuf,
    /// Its last lines.
    pub tail: String,
}

impl std::fmt::Display for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "console log {}, last lines:\n{}",
            self.log.display(),
            self.tail
        )
    }
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn io(
    what: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { what, path, source }
}
