//! Kernel modules, in the order that the builder worked out from `modules.dep`.
//!
//! A list has one module a line: its path below the list's own root, then parameters, if any.
//! Empty lines and lines that begin with `#` are passed over. The word `later` among the parameters
//! is ours: the start of the node does not wait for this module, nor for what only such ones need.
//! So is `last`: this module is loaded after all others, and only where no watchdog came with them
//! (`softdog`: it watches nothing that stops the kernel itself).

pub mod background;
mod queue;

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::kmsg;
use crate::modules::queue::{Queue, put_off, resolve};

/// The modules that find disk, network, watchdog and root; in the initramfs.
pub const BOOT_LIST: &str = "lib/modules.list";
/// The modules that only services need; in the root.
pub const ROOT_LIST: &str = "usr/lib/holdfast/modules.list";

/// `MODULE_INIT_COMPRESSED_FILE` of `linux/module.h`: the kernel decompresses.
const COMPRESSED: i32 = 4;

/// How many modules are loaded at a time.
const LOADERS: usize = 3;

/// Which modules of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that the start waits for.
    Now,
    /// The others: what drives hardware that most machines of the board do not start from.
    Later,
    /// What stands in where none of the others found its hardware.
    Last,
}

/// The word that puts a module off.
const LATER: &str = "later";
/// The word that keeps a module for when nothing else will do.
const LAST: &str = "last";

/// One line of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Below the list's root, without a leading slash.
    pub path: &'a str,
    /// `name=value` words.
    pub parameters: String,
    /// The start does not wait for it.
    pub later: bool,
    /// It is loaded only where nothing else will do; then `later` is set too.
    pub last: bool,
}

impl Module<'_> {
    /// The module's name as the kernel spells it.
    fn name(&self) -> String {
        let file = self.path.rsplit('/').next().unwrap_or(self.path);
        file.split('.').next().unwrap_or(file).replace('-', "_")
    }

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
            let (path, words) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let words: Vec<_> = words.split_whitespace().collect();
            let last = words.contains(&LAST);
            let later = last || words.contains(&LATER);
            let ours = [LATER, LAST];
            let parameters: Vec<_> = words.into_iter().filter(|w| !ours.contains(w)).collect();
            Module {
                path: path.trim_start_matches('/'),
                parameters: parameters.join(" "),
                later,
                last,
            }
        })
}

/// Loads these of what `list` names; returns what failed, in words. A module without its hardware, or loaded
/// already, is no failure.
///
/// Most of the time of loading is waiting (for hardware, for other CPUs): a few threads do it, each
/// module after those it depends on.
pub fn load(root: &Path, list: &str, which: Which) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(root.join(list)) else {
        return vec![format!("no module list at {}", root.join(list).display())];
    };
    let modules: Vec<_> = parse(&text).collect();
    let known: Vec<_> = modules.iter().map(|m| depends(root, m)).collect();
    let off = put_off(&modules, &known);
    let mut part: Vec<_> = modules.iter().zip(known).zip(off).collect();
    part.retain(|((module, _), off)| which == group(module, *off));
    let (modules, known): (Vec<_>, Vec<_>) = part.into_iter().map(|(both, _)| both).unzip();
    let queue = Queue::new(resolve(&modules, &known));
    std::thread::scope(|scope| {
        for _ in 0..LOADERS {
            scope.spawn(|| {
                while let Some(turn) = queue.next() {
                    let result = modules
                        .get(turn.0)
                        .map_or(Ok(()), |module| load_one(root, module));
                    if let Err(failure) = &result {
                        kmsg::warning(failure);
                    }
                    queue.done(turn, result.err());
                }
            });
        }
    });
    queue.failures()
}

fn group(module: &Module<'_>, off: bool) -> Which {
    match (module.last, off) {
        (true, true) => Which::Last,
        (_, true) => Which::Later,
        // Another module needs it, whatever its line says.
        (_, false) => Which::Now,
    }
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
    let parameters = std::ffi::CString::new(module.parameters.as_str()).map_err(|e| told(&e))?;
    match finit_module(
        &file,
        &parameters,
        ModuleInitFlags::from_bits_retain(flags as _),
    ) {
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV | Errno::ENXIO) => Ok(()),
        Err(error) => Err(told(&error)),
    }
}

/// The modules that one needs, from its own `.modinfo` section; `None` where it cannot be read.
fn depends(root: &Path, module: &Module<'_>) -> Option<Vec<String>> {
    if module.is_compressed() {
        return None;
    }
    let bytes = std::fs::read(root.join(module.path)).ok()?;
    depends_in(&bytes)
}

fn depends_in(bytes: &[u8]) -> Option<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let at = bytes.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let value = bytes.get(at..)?.split(|&b| b == 0).next()?;
    let names = std::str::from_utf8(value)
        .ok()?
        .split(',')
        .filter(|name| !name.is_empty());
    Some(names.map(|name| name.replace('-', "_")).collect())
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
            parameters: "heartbeat=60 nowayout=1".into(),
            later: false,
            last: false,
        };
        assert_eq!(modules[1], expected);
        assert!(!modules[1].is_compressed());
        assert_eq!(modules[0].name(), "dm_mod");
    }

    #[test]
    fn the_word_later_is_ours_and_no_parameter() {
        let ahci = parse("x/ahci.ko async_probe later").next().unwrap();
        assert_eq!(
            (ahci.later, ahci.parameters.as_str()),
            (true, "async_probe")
        );
    }

    #[test]
    fn what_stands_in_is_neither_loaded_at_once_nor_with_what_comes_later() {
        let text = "x/iTCO_wdt.ko nowayout=1\nx/nvme.ko later\nx/softdog.ko soft_margin=60 last\n";
        let all: Vec<_> = parse(text).collect();
        assert_eq!(all[2].parameters, "soft_margin=60");
        let off = put_off(&all, &[Some(vec![]), Some(vec![]), Some(vec![])]);
        let groups: Vec<_> = all.iter().zip(off).map(|(m, off)| group(m, off)).collect();
        assert_eq!(groups, [Which::Now, Which::Later, Which::Last]);
    }

    #[test]
    fn dependencies_stand_in_the_module() {
        let bytes = b"\x7fELF..license=GPL\0depends=dm-mod,dm-bufio\0name=dm_verity\0";
        assert_eq!(depends_in(bytes).unwrap(), ["dm_mod", "dm_bufio"]);
        assert_eq!(depends_in(b"x\0depends=\0").unwrap(), Vec::<String>::new());
        assert_eq!(depends_in(b"nothing"), None);
    }
}
