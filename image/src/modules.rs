//! Kernel modules: the ones a board names and the ones those need, in the order to load them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use object::{Object, ObjectSection};

use crate::{
    error::{Error, Result},
    pack::{Kind, Pack, Slice},
};

/// A kernel as its packages have it: all of it in one, or kernel, modules and the list of those
/// built in each in its own.
pub(crate) struct Kernel {
    /// e.g. `6.12.107+deb13-cloud-amd64`.
    pub(crate) release: String,
    image: Option<Slice>,
    /// Keys of the packages that it was read from.
    sources: Vec<String>,
    /// Module name (with `_`) to its path and bytes.
    modules: BTreeMap<String, (String, Slice)>,
    builtin: BTreeSet<String>,
}

/// A module ready to be loaded.
#[derive(Debug)]
pub(crate) struct Module {
    /// Path below `/usr/lib/modules/RELEASE/`, ending in `.ko`.
    pub(crate) path: String,
    /// `name=value` words for it, as a list of modules has them after its path.
    pub(crate) parameters: String,
    /// The ELF file.
    pub(crate) bytes: Vec<u8>,
}

impl Module {
    /// Its name, as its file has it.
    pub(crate) fn name(&self) -> &str {
        self.path
            .rsplit('/')
            .next()
            .and_then(|f| f.strip_suffix(".ko"))
            .unwrap_or(&self.path)
    }

    /// Its line in a list of modules that lies beside `dir`.
    pub(crate) fn line(&self, dir: &str) -> String {
        let Self {
            path, parameters, ..
        } = self;
        if parameters.is_empty() {
            format!("{dir}{path}\n")
        } else {
            format!("{dir}{path} {parameters}\n")
        }
    }
}

impl Kernel {
    /// Reads the one kernel that is in `packs`, the packages of a board.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub(crate) fn new(packs: &[Pack]) -> Result<Self> {
        let releases: BTreeSet<&str> = packs.iter().filter_map(release).collect();
        let release = match Vec::from_iter(releases)[..] {
            [one] => one.to_owned(),
            [] => return Err(Error::build("kernel", "no package holds modules")),
            ref several => {
                let reason = format!("packages hold several: {}", several.join(", "));
                return Err(Error::build("kernel", reason));
            }
        };
        let top = format!("{TOP}{release}/");
        let mut kernel = Self {
            // Where it lies if it has a package of its own, and if not.
            image: [format!("{top}vmlinuz"), format!("boot/vmlinuz-{release}")]
                .iter()
                .find_map(|path| packs.iter().find_map(|p| p.find(path))),
            release,
            sources: Vec::new(),
            modules: BTreeMap::new(),
            builtin: BTreeSet::new(),
        };
        for pack in packs.iter().filter(|p| self::release(p).is_some()) {
            kernel.sources.push(pack.key().to_owned());
            kernel.read(pack, &top)?;
        }
        Ok(kernel)
    }

    /// Adds what `pack` has below `top`.
    fn read(&mut self, pack: &Pack, top: &str) -> Result<()> {
        for entry in &pack.entries {
            let (Some(path), Kind::File { offset, len, .. }) =
                (entry.path.strip_prefix(top), &entry.kind)
            else {
                continue;
            };
            let file = path.rsplit('/').next().unwrap_or(path);
            if let Some((name, _)) = file.split_once(".ko") {
                let module = (path.to_owned(), pack.slice(*offset, *len));
                self.modules.insert(plain(name), module);
            }
        }
        if let Some(list) = pack.find(&format!("{top}modules.builtin")) {
            let list = list.read()?;
            let names = String::from_utf8_lossy(&list);
            self.builtin.extend(
                names
                    .lines()
                    .filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko").map(plain)),
            );
        }
        Ok(())
    }

    /// Stand for its content in cache keys.
    pub(crate) fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Names of all its modules, also of those that are built in.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().chain(&self.builtin).map(String::as_str)
    }

    /// The kernel itself.
    pub(crate) fn image(&self) -> Result<&Slice> {
        self.image.as_ref().ok_or_else(|| {
            let reason = format!(
                "the packages hold modules of {0}, but neither boot/vmlinuz-{0} nor {TOP}{0}/vmlinuz",
                self.release
            );
            Error::build("kernel", reason)
        })
    }

    /// `wanted` (names, each with parameters after it where it has any) and what they need, each
    /// after what it needs; those in `have` are left out and the new ones added to it. Modules
    /// that are built in count as present. `blame` adds to an error where its wish stands.
    pub(crate) fn closure(
        &self,
        wanted: &[String],
        have: &mut BTreeSet<String>,
        blame: impl Fn(&str, Error) -> Error,
    ) -> Result<Vec<Module>> {
        let mut out = Vec::new();
        for wish in wanted {
            let (name, parameters) = wish.split_once(' ').unwrap_or((wish, ""));
            self.visit(&plain(name), name, have, &mut out)
                .map_err(|e| blame(wish, e))?;
            if let Some(module) = out.last_mut().filter(|m| plain(m.name()) == plain(name)) {
                module.parameters = parameters.trim().to_owned();
            }
        }
        Ok(out)
    }

    fn visit(
        &self,
        name: &str,
        asked: &str,
        have: &mut BTreeSet<String>,
        out: &mut Vec<Module>,
    ) -> Result<()> {
        if have.contains(name) || self.builtin.contains(name) {
            return Ok(());
        }
        let Some((path, slice)) = self.modules.get(name) else {
            let near: Vec<&str> = self
                .modules
                .keys()
                .filter(|k| k.contains(name) || name.contains(k.as_str()))
                .map(String::as_str)
                .take(4)
                .collect();
            let hint = if near.is_empty() {
                String::new()
            } else {
                format!("; it has {}", near.join(", "))
            };
            return Err(Error::build(
                format!("module {asked}"),
                format!(
                    "kernel {} neither has it nor has it built in{hint}",
                    self.release
                ),
            ));
        };
        // Before its dependencies: a loop among them then ends.
        have.insert(name.to_owned());
        let bytes = decompress(path, slice.read()?)?;
        for needed in depends(path, &bytes)? {
            self.visit(&needed, &needed, have, out)?;
        }
        let path = path
            .split_once(".ko")
            .map_or(path.as_str(), |(stem, _)| stem);
        out.push(Module {
            path: format!("{path}.ko"),
            parameters: String::new(),
            bytes,
        });
        Ok(())
    }
}

/// Where modules lie in a package, in a folder for each release.
const TOP: &str = "usr/lib/modules/";

/// The release of the kernel that a package is a part of.
fn release(pack: &Pack) -> Option<&str> {
    pack.entries
        .iter()
        .find_map(|e| Some(e.path.strip_prefix(TOP)?.split_once('/')?.0))
}

/// Module names use `_` where file names may use `-`.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn decompress(path: &str, packed: Vec<u8>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let done = match path.rsplit_once(".ko").map(|(_, packing)| packing) {
        Some("") => return Ok(packed),
        Some(".xz") => liblzma::read::XzDecoder::new(&packed[..]).read_to_end(&mut out),
        Some(".zst") => zstd::Decoder::new(&packed[..]).and_then(|mut d| d.read_to_end(&mut out)),
        Some(".gz") => flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out),
        _ => {
            return Err(Error::build(
                format!("module {path}"),
                "is packed in a way that is not known",
            ));
        }
    };
    done.map_err(|e| Error::build(format!("module {path}"), format!("damaged: {e}")))?;
    Ok(out)
}

/// `depends=a,b` and `softdep=pre: c` of a module's `.modinfo` (kernel `include/linux/module.h`).
/// Soft ones that the kernel does not have are no error for modprobe: only the hard ones count.
fn depends(path: &str, elf: &[u8]) -> Result<Vec<String>> {
    let bad = |reason: String| Error::build(format!("module {path}"), reason);
    let file = object::File::parse(elf).map_err(|e| bad(e.to_string()))?;
    let section = file
        .section_by_name(".modinfo")
        .ok_or_else(|| bad("has no .modinfo".into()))?;
    let info = section.data().map_err(|e| bad(e.to_string()))?;
    Ok(info
        .split(|b| *b == 0)
        .filter_map(|entry| entry.strip_prefix(b"depends="))
        .flat_map(|list| list.split(|b| *b == b','))
        .filter(|name| !name.is_empty())
        .map(|name| plain(&String::from_utf8_lossy(name)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::Writer;

    /// A package with files of these paths and contents.
    fn pack(dir: &std::path::Path, name: &str, files: &[(&str, &str)]) -> Pack {
        let at = dir.join(name);
        let mut writer = Writer::create(&at).unwrap();
        writer.dir("usr/lib/modules".into(), 0o755);
        for (path, content) in files {
            writer
                .file((*path).to_owned(), 0o644, &mut content.as_bytes())
                .unwrap();
        }
        writer.finish().unwrap();
        Pack::open(&at).unwrap()
    }

    const BUILTIN: (&str, &str) = (
        "usr/lib/modules/7.3/modules.builtin",
        "kernel/drivers/pci/pcie-x.ko\n",
    );
    const MODULE: (&str, &str) = ("usr/lib/modules/7.3/kernel/net/macb.ko.xz", "m");
    const OTHER: (&str, &str) = ("usr/lib/firmware/a.bin", "f");

    fn seen(kernel: &Kernel) -> (String, Vec<&str>, Vec<u8>) {
        (
            kernel.release.clone(),
            kernel.names().collect(),
            kernel.image().unwrap().read().unwrap(),
        )
    }

    #[test]
    fn a_kernel_is_the_same_in_one_package_and_in_several() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let whole = [
            pack(dir, "firmware", &[OTHER]),
            pack(
                dir,
                "linux-image-7.3",
                &[("boot/vmlinuz-7.3", "k"), BUILTIN, MODULE],
            ),
        ];
        let split = [
            pack(dir, "linux-base-7.3", &[BUILTIN]),
            pack(
                dir,
                "linux-binary-7.3",
                &[("usr/lib/modules/7.3/vmlinuz", "k")],
            ),
            pack(dir, "linux-image-split", &[]),
            pack(dir, "linux-modules-7.3", &[MODULE]),
            pack(dir, "raspi-firmware", &[OTHER]),
        ];
        let (whole, split) = (Kernel::new(&whole).unwrap(), Kernel::new(&split).unwrap());
        assert_eq!(seen(&whole), seen(&split));
        assert_eq!(
            seen(&split),
            ("7.3".to_owned(), vec!["macb", "pcie_x"], b"k".to_vec())
        );
        assert_eq!(whole.sources(), ["linux-image-7.3"]);
        assert_eq!(
            split.sources(),
            ["linux-base-7.3", "linux-binary-7.3", "linux-modules-7.3"]
        );
    }

    #[test]
    fn no_kernel_half_a_kernel_and_two_kernels_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let told = |packs: &[Pack]| Kernel::new(packs).err().unwrap().to_string();
        assert!(told(&[pack(dir, "a", &[OTHER])]).contains("no package holds modules"));
        let old = pack(dir, "b", &[("usr/lib/modules/6.12/kernel/x.ko", "x")]);
        let half = [pack(dir, "c", &[MODULE])];
        let e = Kernel::new(&half).unwrap().image().err().unwrap();
        assert!(e.to_string().contains("neither boot/vmlinuz-7.3"), "{e}");
        let [half] = half;
        assert!(told(&[old, half]).contains("several: 6.12, 7.3"));
    }
}
