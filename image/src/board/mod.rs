//! Boards: how a kind of machine boots and which modules it needs (`boards/NAME.toml`).

mod raw;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use holdfast_core::header::{Encoding, Watchdog};
use serde::Deserialize;
use toml::Spanned;

use self::raw::{Raw, RawEspFile};
use crate::{
    definition::{Origins, Source, TRIAL_SECONDS},
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

/// A file on the ESP beside the loader: what a firmware reads before it.
#[derive(Clone, Debug)]
pub struct EspFile {
    /// Path on the ESP.
    pub path: String,
    /// Its bytes.
    pub content: EspContent,
}

/// Where a file of the ESP comes from.
#[derive(Clone, Debug)]
pub enum EspContent {
    /// The board file.
    Text(String),
    /// A file of the board's packages; `{release}` stands for the kernel's, a `*` in the last part
    /// for any rest (the path on the ESP is then a folder, `.` the volume's own).
    Package(String),
    /// U-Boot's environment with these variables and no others.
    UBootEnv(BTreeMap<String, String>),
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
    /// Components of the archive that its packages are in.
    pub components: BTreeSet<String>,
    /// The package (or metapackage) of its kernel.
    pub kernel_package: String,
    /// The suite of its kernel, if not the recipe's.
    pub kernel_suite: Option<String>,
    /// Kernel arguments, consoles included.
    pub kernel_args: Vec<String>,
    /// The package with the UKI stub.
    pub stub_package: String,
    /// The stub's path in it.
    pub stub: String,
    /// Where the firmware looks for the loader on the ESP.
    pub loader: String,
    /// How the UKI lies in its slot.
    pub encoding: Encoding,
    /// Device trees for the UKI, paths in the kernel's package; `{release}` stands for its release.
    pub device_trees: Vec<String>,
    /// The table of the disk has MBR entries for the FAT volumes, for a boot ROM that knows no GPT.
    pub hybrid_mbr: bool,
    /// Packages with firmware.
    pub firmware_packages: Vec<String>,
    /// Firmware that drivers ask for, in the initramfs: paths, a final `*` stands for any rest.
    pub initramfs_firmware: Vec<String>,
    /// The same, in the root.
    pub root_firmware: Vec<String>,
    /// Microcode that the kernel loads first: its name there (`GenuineIntel.bin`) to the files.
    pub microcode: BTreeMap<String, String>,
    /// What lies on the ESP beside the loader.
    pub esp: Vec<EspFile>,
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
        let encoding = match raw.boot.encoding.as_ref() {
            None => Encoding::Raw,
            Some(word) => match word.get_ref().as_str() {
                "raw" => Encoding::Raw,
                "zstd" => Encoding::Zstd,
                other => {
                    let message = format!("boot.encoding: {other:?} is not one of raw, zstd");
                    return Err(source.error(Some(word.span()), message).into());
                }
            },
        };
        if let Some(bad) = raw.components.iter().find(|c| !is_component(c.get_ref())) {
            let message = format!(
                "components: {:?} is not one of {}",
                bad.get_ref(),
                COMPONENTS.join(", ")
            );
            return Err(source.error(Some(bad.span()), message).into());
        }
        let trial_seconds =
            source.seconds("trial_seconds", &TRIAL_SECONDS, raw.trial_seconds.as_ref())?;
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
            ("boot.device_trees", &raw.boot.device_trees),
            ("firmware.packages", &raw.firmware.packages),
            ("firmware.initramfs", &raw.firmware.initramfs),
            ("firmware.root", &raw.firmware.root),
        ] {
            for value in list {
                origins.note(field, value, &source);
            }
        }
        for files in raw.firmware.microcode.values() {
            origins.note("firmware.microcode", files, &source);
        }
        let esp = raw
            .esp
            .into_iter()
            .map(|file| esp_file(file, &source, &mut origins))
            .collect::<Result<_>>()?;
        let names =
            |list: Vec<Spanned<String>>| list.into_iter().map(Spanned::into_inner).collect();
        let mut kernel_args: Vec<String> =
            raw.console.iter().map(|c| format!("console={c}")).collect();
        kernel_args.extend(raw.kernel.args.into_iter().map(Spanned::into_inner));
        Ok(Self {
            name: name.to_owned(),
            description: raw.description,
            arch: raw.arch,
            components: raw
                .components
                .into_iter()
                .map(Spanned::into_inner)
                .collect(),
            kernel_package: raw.kernel.package.into_inner(),
            kernel_suite: raw.kernel.suite.map(Spanned::into_inner),
            kernel_args,
            stub_package: raw.boot.stub_package.into_inner(),
            stub: raw.boot.stub.into_inner(),
            loader: raw.boot.loader.into_inner(),
            encoding,
            device_trees: names(raw.boot.device_trees),
            hybrid_mbr: raw.boot.hybrid_mbr,
            firmware_packages: names(raw.firmware.packages),
            initramfs_firmware: names(raw.firmware.initramfs),
            root_firmware: names(raw.firmware.root),
            microcode: raw
                .firmware
                .microcode
                .into_iter()
                .map(|(name, files)| (name.into_inner(), files.into_inner()))
                .collect(),
            esp,
            boot_modules: names(raw.modules.boot),
            late_modules: names(raw.modules.late),
            watchdog,
            watchdog_seconds,
            trial_seconds,
            text: text.to_owned(),
            origins,
        })
    }

    /// The packages it adds to a recipe's from the recipe's suite.
    #[must_use]
    pub fn packages(&self) -> BTreeSet<String> {
        let kernel = self
            .kernel_suite
            .is_none()
            .then(|| self.kernel_package.clone());
        kernel
            .into_iter()
            .chain([self.stub_package.clone()])
            .chain(self.firmware_packages.iter().cloned())
            .collect()
    }

    /// The same board with its hardware watchdog left alone, by loader and init: for emulators
    /// whose watchdog fires at once.
    #[must_use]
    pub fn without_watchdog(mut self) -> Self {
        self.watchdog = Watchdog::None;
        self.watchdog_seconds = 0;
        self.kernel_args.push(NO_WATCHDOG.to_owned());
        self
    }
}

/// Tells init to leave watchdogs alone (`init/src/cmdline.rs`).
const NO_WATCHDOG: &str = "holdfast.watchdog=off";

/// The components of Debian's archive that an image may be made of.
const COMPONENTS: [&str; 3] = ["main", "contrib", "non-free-firmware"];

fn is_component(name: &str) -> bool {
    COMPONENTS.contains(&name)
}

fn esp_file(raw: RawEspFile, source: &Source<'_>, origins: &mut Origins) -> Result<EspFile> {
    let path = raw.path.get_ref();
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        let message = format!("esp.path: {path:?} must be a path without a leading slash");
        return Err(source.error(Some(raw.path.span()), message).into());
    }
    let content = match (raw.from, raw.content, raw.u_boot_env) {
        (Some(from), None, None) => {
            origins.note("esp.from", &from, source);
            EspContent::Package(from.into_inner())
        }
        (None, Some(text), None) => EspContent::Text(text),
        (None, None, Some(env)) => {
            if let Some(bad) = env
                .get_ref()
                .keys()
                .find(|k| k.is_empty() || k.contains('='))
            {
                let message = format!("esp.u_boot_env: {bad:?} is no name of a variable");
                return Err(source.error(Some(env.span()), message).into());
            }
            EspContent::UBootEnv(env.into_inner())
        }
        _ => {
            let message = format!(
                "esp: {path:?} needs one of from = \"file of a package\", content = \"text\", u_boot_env = {{ name = \"value\" }}"
            );
            return Err(source.error(Some(raw.path.span()), message).into());
        }
    };
    Ok(EspFile {
        path: raw.path.into_inner(),
        content,
    })
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
