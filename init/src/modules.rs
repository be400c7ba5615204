//! Kernel modules, in the order that the builder worked out from `modules.dep`.
//!
//! A list has one module a line: its path below the list's own root, then parameters, if any.
//! Empty lines and lines that begin with `#` are passed over.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::kmsg;

/// The modules that find disk, network, watchdog and root; in the initramfs.
pub const BOOT_LIST: &str = "lib/modules.list";
/// The modules that only services need; in the root.
pub const ROOT_LIST: &str = "usr/lib/holdfast/modules.list";

/// `MODULE_INIT_COMPRESSED_FILE` of `linux/module.h`: the kernel decompresses.
const COMPRESSED: i32 = 4;

/// One line of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Below the list's root, without a leading slash.
    pub path: &'a str,
    /// `name=value` words.
    pub parameters: &'a str,
}

impl Module<'_> {
    fn is_compressed(&self) -> bool {
        [".xz", ".zst", ".gz"]
            .iter()
            .any(|end| self.path.ends_with(end))
    }
}

/// Reads a list.
pub fn parse(text: &str) -> impl Iterator<Item = Module<'_>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (path, parameters) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            Module {
                path: path.trim_start_matches('/'),
                parameters: parameters.trim(),
            }
        })
}

/// Loads what `list` names; returns what failed, in words. A module without its hardware, or loaded
/// already, is no failure.
pub fn load(root: &Path, list: &str) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(root.join(list)) else {
        return vec![format!("no module list at {}", root.join(list).display())];
    };
    let failures: Vec<String> = parse(&text)
        .filter_map(|module| load_one(root, &module).err())
        .collect();
    for failure in &failures {
        kmsg::warning(failure);
    }
    failures
}

fn load_one(root: &Path, module: &Module<'_>) -> Result<(), String> {
    let path = root.join(module.path);
    let told = |why: &dyn std::fmt::Display| format!("module {}: {why}", module.path);
    let file = File::open(&path).map_err(|e| told(&e))?;
    let flags = if module.is_compressed() {
        COMPRESSED
    } else {
        0
    };
    let parameters = std::ffi::CString::new(module.parameters).map_err(|e| told(&e))?;
    match finit_module(
        &file,
        &parameters,
        ModuleInitFlags::from_bits_retain(flags as _),
    ) {
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV | Errno::ENXIO) => Ok(()),
        Err(error) => Err(told(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_order_and_parameters() {
        let text = "# boot\n\nlib/modules/6/dm-mod.ko.xz\n/lib/modules/6/i6300esb.ko heartbeat=60 nowayout=1\n";
        let modules: Vec<_> = parse(text).collect();
        assert_eq!(modules.len(), 2);
        assert!(modules[0].is_compressed() && modules[0].parameters.is_empty());
        let expected = Module {
            path: "lib/modules/6/i6300esb.ko",
            parameters: "heartbeat=60 nowayout=1",
        };
        assert_eq!(modules[1], expected);
        assert!(!modules[1].is_compressed());
    }
}
