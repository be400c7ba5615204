//! KVM is used only where a guest was seen running under it: `/dev/kvm` may exist, open, and still
//! end every guest with "emulation failure".

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, io};
use crate::firmware::Firmware;
use crate::platform::Platform;

/// Which accelerator runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM if a probe guest ran under it, else emulation.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation, one thread per virtual CPU.
    Tcg,
}

impl Accel {
    pub(crate) fn wants_kvm(self, platform: Platform) -> Result<bool> {
        match self {
            Self::Kvm if !platform.runs_natively() => Err(Error::NoKvm(
                "this processor does not run that machine".into(),
            )),
            _ if !platform.runs_natively() => Ok(false),
            Self::Tcg => Ok(false),
            Self::Auto => Ok(kvm_works().is_ok()),
            Self::Kvm => kvm_works().map(|()| true).map_err(Error::NoKvm),
        }
    }
}

/// How long the firmware may take to look for a boot device under KVM; it needs about 2 s.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// Tells whether KVM runs guests here, by having run the firmware under it; the answer is kept for
/// this boot of the host, in the user's cache directory.
///
/// # Errors
/// The reason why not, as text.
pub fn kvm_works() -> std::result::Result<(), String> {
    static ANSWER: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(cached_probe).clone()
}

fn cached_probe() -> std::result::Result<(), String> {
    if !Path::new("/dev/kvm").exists() {
        return Err("no /dev/kvm".into());
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let cache = cache_dir().map(|dir| dir.join("kvm-probe"));
    if let Some(text) = cache
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok())
        && let Some((for_boot, answer)) = text.split_once('\n')
        && for_boot == boot.trim()
    {
        return if answer == "ok" {
            Ok(())
        } else {
            Err(answer.to_owned())
        };
    }
    let answer = probe()
        .map_err(|error| error.to_string())
        .and_then(|found| found);
    if let Some(path) = cache {
        let text = format!(
            "{}\n{}",
            boot.trim(),
            answer.as_ref().err().map_or("ok", String::as_str)
        );
        // Without the cache the probe runs again next time: nothing is lost.
        let _ = std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
            .and_then(|()| std::fs::write(&path, text));
    }
    answer
}

fn cache_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|dir| dir.join("holdfast"))
}

/// Runs the firmware without a disk under KVM: it says `BdsDxe` on the serial port once it has gone
/// through 16, 32 and 64 bit code, its drivers and interrupts.
fn probe() -> Result<std::result::Result<(), String>> {
    let firmware = Firmware::find(Platform::Q35)?;
    let dir = tempfile::tempdir().map_err(io("make a directory in", std::env::temp_dir()))?;
    let log = dir.path().join("serial");
    let errors = dir.path().join("stderr");
    let vars = dir.path().join("vars.fd");
    std::fs::copy(&firmware.vars, &vars).map_err(io("copy", &firmware.vars))?;
    let stderr = std::fs::File::create(&errors).map_err(io("make", &errors))?;
    let mut child = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-machine",
            "q35,smm=off",
            "-m",
            "256",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args([
            "-drive",
            &format!(
                "if=pflash,unit=0,format=raw,readonly=on,file={}",
                firmware.code.display()
            ),
        ])
        .args([
            "-drive",
            &format!("if=pflash,unit=1,format=raw,file={}", vars.display()),
        ])
        .args(["-serial", &format!("file:{}", log.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(|_| Error::MissingProgram {
            program: "qemu-system-x86_64".into(),
            package: "qemu-system-x86",
        })?;
    let began = Instant::now();
    let answer = loop {
        if std::fs::read(&log).is_ok_and(|bytes| bytes.windows(6).any(|w| w == b"BdsDxe")) {
            break Ok(());
        }
        let said = || std::fs::read_to_string(&errors).unwrap_or_default();
        if said().contains("emulation failure") {
            break Err("emulation failure".into());
        }
        if let Ok(Some(status)) = child.try_wait() {
            break Err(format!(
                "QEMU ended ({status}): {}",
                said().lines().next().unwrap_or_default()
            ));
        }
        if began.elapsed() > PROBE_LIMIT {
            break Err(format!(
                "the firmware did not come up within {PROBE_LIMIT:?}"
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let _ = child.kill();
    let _ = child.wait();
    Ok(answer)
}
