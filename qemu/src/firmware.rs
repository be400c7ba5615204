use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::platform::Platform;

/// UEFI firmware: its code, and the template of its variable store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// Read-only code.
    pub code: PathBuf,
    /// Variable store to copy for each machine.
    pub vars: PathBuf,
}

/// Where Debian's package `ovmf` keeps them (bookworm and trixie: the 4M pair; older: the 2M pair).
/// The pairs without Secure Boot: nothing is enrolled, an unsigned loader starts.
const PLACES: [(&str, &str); 2] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
];

/// The same for 64-bit Arm, package `qemu-efi-aarch64`.
const ARM_PLACES: [(&str, &str); 1] = [(
    "/usr/share/AAVMF/AAVMF_CODE.fd",
    "/usr/share/AAVMF/AAVMF_VARS.fd",
)];

impl Firmware {
    /// Finds the platform's firmware where Debian installs it.
    ///
    /// # Errors
    /// [`Error::MissingFirmware`] names the package to install.
    pub fn find(platform: Platform) -> Result<Self> {
        let (package, places): (_, &[_]) = match platform {
            Platform::Q35 => ("ovmf", &PLACES),
            _ => ("qemu-efi-aarch64", &ARM_PLACES),
        };
        let places: Vec<_> = places
            .iter()
            .map(|(c, v)| (PathBuf::from(c), PathBuf::from(v)))
            .collect();
        Self::find_among(package, &places, |p| p.is_file())
    }

    fn find_among(
        package: &'static str,
        places: &[(PathBuf, PathBuf)],
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self> {
        places
            .iter()
            .find(|(code, vars)| exists(code) && exists(vars))
            .map(|(code, vars)| Self {
                code: code.clone(),
                vars: vars.clone(),
            })
            .ok_or_else(|| Error::MissingFirmware {
                package,
                tried: places.iter().map(|(code, _)| code.clone()).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_firmware_names_the_package() {
        let places = [(PathBuf::from("/a"), PathBuf::from("/b"))];
        let error = Firmware::find_among("ovmf", &places, |p| p == Path::new("/a")).unwrap_err();
        assert!(
            error.to_string().contains("apt-get install ovmf"),
            "{error}"
        );
    }
}
