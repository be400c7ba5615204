//! Boards: how a kind of machine boots and which modules it needs (`boards/NAME.toml`).

use std::path::Path;

use holdfast_core::header::Watchdog;
use serde::Deserialize;
use toml::Spanned;

use crate::{
    definition::{Origins, Source},
    error::{IoContext, Result},
};

/// Processor architectures that the builder knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit x86.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl Arch {
    /// Debian's name for it.
    #[must_use]
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// A board file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    description: String,
    arch: Arch,
    console: Vec<String>,
    kernel: RawKernel,
    boot: RawBoot,
    modules: RawModules,
    #[serde(default)]
    watchdog: Option<RawWatchdog>,
    #[serde(default)]
    trial_seconds: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKernel {
    package: Spanned<String>,
    #[serde(default)]
    args: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBoot {
    stub_package: Spanned<String>,
    stub: Spanned<String>,
    loader: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModules {
    boot: Vec<Spanned<String>>,
    #[serde(default)]
    late: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWatchdog {
    kind: Spanned<String>,
    seconds: Spanned<u16>,
}

/// A board, checked.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its name: the file's, without `.toml`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Its architecture.
    pub arch: Arch,
    /// The package (or metapackage) of its kernel.
    pub kernel_package: String,
    /// Kernel arguments, consoles included.
    pub kernel_args: Vec<String>,
    /// The package with the UKI stub.
    pub stub_package: String,
    /// The stub's path in it.
    pub stub: String,
    /// Where the firmware looks for the loader on the ESP.
    pub loader: String,
    /// Modules that init loads at once, in the initramfs.
    pub boot_modules: Vec<String>,
    /// Modules that init loads once the root is mounted.
    pub late_modules: Vec<String>,
    /// The watchdog that the loader arms.
    pub watchdog: Watchdog,
    /// After how many seconds it fires.
    pub watchdog_seconds: u16,
    /// How long a trial may take, if not init's own default.
    pub trial_seconds: Option<u32>,
    /// The file as it is, for the node.
    pub text: String,
    pub(crate) origins: Origins,
}

impl Board {
    /// Reads a board file.
    ///
    /// # Errors
    /// When it cannot be read, or with file, line and field of what it gets wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).at("read", path)?;
        let name = path
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        Self::parse(path, &name, &text)
    }

    fn parse(file: &Path, name: &str, text: &str) -> Result<Self> {
        let source = Source { file, text };
        let raw: Raw = source.parse()?;
        if let Some(bad) = raw
            .kernel
            .args
            .iter()
            .find(|a| a.get_ref().starts_with("holdfast."))
        {
            let message = format!(
                "kernel.args: {:?} is one the builder sets; leave it out",
                bad.get_ref()
            );
            return Err(source.error(Some(bad.span()), message).into());
        }
        for (field, path) in [
            ("boot.stub", &raw.boot.stub),
            ("boot.loader", &raw.boot.loader),
        ] {
            let p = path.get_ref();
            if p.is_empty()
                || p.starts_with('/')
                || p.split('/').any(|part| part.is_empty() || part == "..")
            {
                let message = format!(
                    "{field}: {p:?} must be a path like \"EFI/BOOT/BOOTX64.EFI\", without a leading slash"
                );
                return Err(source.error(Some(path.span()), message).into());
            }
        }
        let (watchdog, watchdog_seconds) = match &raw.watchdog {
            None => (Watchdog::None, 0),
            Some(w) => {
                let kind = Watchdog::from_name(w.kind.get_ref()).ok_or_else(|| {
                    let message = format!(
                        "watchdog.kind: {:?} is not one of none, i6300esb, itco, bcm2835",
                        w.kind.get_ref()
                    );
                    source.error(Some(w.kind.span()), message)
                })?;
                let seconds = *w.seconds.get_ref();
                if !(10..=600).contains(&seconds) {
                    let message = format!("watchdog.seconds: {seconds} must be between 10 and 600");
                    return Err(source.error(Some(w.seconds.span()), message).into());
                }
                (kind, seconds)
            }
        };
        let trial_seconds = source.trial_seconds(raw.trial_seconds.as_ref())?;
        let mut origins = Origins::default();
        for (field, value) in [
            ("kernel.package", &raw.kernel.package),
            ("boot.stub_package", &raw.boot.stub_package),
            ("boot.stub", &raw.boot.stub),
        ] {
            origins.note(field, value, &source);
        }
        for (field, list) in [
            ("modules.boot", &raw.modules.boot),
            ("modules.late", &raw.modules.late),
            ("kernel.args", &raw.kernel.args),
        ] {
            for module in list {
                origins.note(field, module, &source);
            }
        }
        let names =
            |list: Vec<Spanned<String>>| list.into_iter().map(Spanned::into_inner).collect();
        let mut kernel_args: Vec<String> =
            raw.console.iter().map(|c| format!("console={c}")).collect();
        kernel_args.extend(raw.kernel.args.into_iter().map(Spanned::into_inner));
        Ok(Self {
            name: name.to_owned(),
            description: raw.description,
            arch: raw.arch,
            kernel_package: raw.kernel.package.into_inner(),
            kernel_args,
            stub_package: raw.boot.stub_package.into_inner(),
            stub: raw.boot.stub.into_inner(),
            loader: raw.boot.loader.into_inner(),
            boot_modules: names(raw.modules.boot),
            late_modules: names(raw.modules.late),
            watchdog,
            watchdog_seconds,
            trial_seconds,
            text: text.to_owned(),
            origins,
        })
    }

    /// The packages it adds to a recipe's.
    #[must_use]
    pub fn packages(&self) -> Vec<String> {
        vec![self.kernel_package.clone(), self.stub_package.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const GOOD: &str = r#"description = "d"
arch = "amd64"
console = ["ttyS0"]
[kernel]
package = "linux-image-cloud-amd64"
args = ["quiet"]
[boot]
stub_package = "systemd-boot-efi"
stub = "usr/lib/stub"
loader = "EFI/BOOT/BOOTX64.EFI"
[modules]
boot = ["dm_verity"]
[watchdog]
kind = "i6300esb"
seconds = 60
"#;

    fn error(from: &str, to: &str) -> String {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD);
        Board::parse(Path::new("boards/x.toml"), "x", &text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_board_is_read() {
        let board = Board::parse(Path::new("boards/x.toml"), "x", GOOD).unwrap();
        assert_eq!(board.kernel_args, ["console=ttyS0", "quiet"]);
        assert_eq!(
            (board.watchdog, board.watchdog_seconds),
            (Watchdog::I6300esb, 60)
        );
        for (field, value, line) in [
            ("kernel.package", "linux-image-cloud-amd64", 5),
            ("boot.stub", "usr/lib/stub", 9),
            ("modules.boot", "dm_verity", 12),
        ] {
            let e = board
                .origins
                .blame(field, value, Error::build("x", "is not there"));
            let place = format!("boards/x.toml:{line}: {field}: x: ");
            assert!(e.to_string().starts_with(&place), "{e}");
        }
    }

    #[test]
    fn errors_name_file_line_field_and_the_right_form() {
        let e = error("console =", "consoel =");
        assert!(
            e.starts_with("boards/x.toml:3: ") && e.contains("consoel") && e.contains("`console`"),
            "{e}"
        );
        let e = error("\"i6300esb\"", "\"esb\"");
        assert!(
            e.starts_with("boards/x.toml:14: watchdog.kind") && e.contains("i6300esb"),
            "{e}"
        );
        let e = error("seconds = 60", "seconds = 5");
        assert!(
            e.starts_with("boards/x.toml:15: ") && e.contains("between 10 and 600"),
            "{e}"
        );
        let e = error("arch =", "trial_seconds = 7201\narch =");
        assert!(
            e.starts_with("boards/x.toml:2: trial_seconds: 7201")
                && e.contains("between 20 and 7200"),
            "{e}"
        );
        let e = error("\"EFI/", "\"/EFI/");
        assert!(e.starts_with("boards/x.toml:10: boot.loader"), "{e}");
        let e = error("\"amd64\"", "\"mips\"");
        assert!(
            e.starts_with("boards/x.toml:2: ") && e.contains("`amd64`"),
            "{e}"
        );
        let e = error("\"quiet\"", "\"holdfast.slot=a\"");
        assert!(e.starts_with("boards/x.toml:6: kernel.args"), "{e}");
    }
}
