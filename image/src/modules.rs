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

/// A kernel package as a source of modules.
pub(crate) struct KernelPackage<'a> {
    /// e.g. `6.12.107+deb13-cloud-amd64`.
    pub(crate) release: String,
    pack: &'a Pack,
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

impl<'a> KernelPackage<'a> {
    pub(crate) fn new(pack: &'a Pack) -> Result<Self> {
        const TOP: &str = "usr/lib/modules/";
        let release = pack
            .entries
            .iter()
            .find_map(|e| {
                e.path
                    .strip_prefix(TOP)?
                    .split_once('/')
                    .map(|(release, _)| release.to_owned())
            })
            .ok_or_else(|| Error::build("kernel", "its package holds no modules"))?;
        let top = format!("{TOP}{release}/");
        let mut modules = BTreeMap::new();
        for entry in &pack.entries {
            let (Some(path), Kind::File { offset, len, .. }) =
                (entry.path.strip_prefix(&top), &entry.kind)
            else {
                continue;
            };
            let file = path.rsplit('/').next().unwrap_or(path);
            if let Some((name, _)) = file.split_once(".ko") {
                modules.insert(plain(name), (path.to_owned(), pack.slice(*offset, *len)));
            }
        }
        let builtin = pack
            .find(&format!("{top}modules.builtin"))
            .map(|s| s.read())
            .transpose()?
            .unwrap_or_default();
        let builtin = String::from_utf8_lossy(&builtin)
            .lines()
            .filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko").map(plain))
            .collect();
        Ok(Self {
            release,
            pack,
            modules,
            builtin,
        })
    }

    /// Names of all its modules, also of those that are built in.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().chain(&self.builtin).map(String::as_str)
    }

    /// The kernel itself.
    pub(crate) fn image(&self) -> Result<Slice> {
        let path = format!("boot/vmlinuz-{}", self.release);
        self.pack
            .find(&path)
            .ok_or_else(|| Error::build("kernel", format!("its package holds no {path}")))
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
