//! The steps whose results are kept: kernel modules, root, the large parts of the initramfs.

use std::{collections::BTreeSet, path::PathBuf};

use holdfast_core::{layout::Role, slots::Slot};
use serde::{Deserialize, Serialize};

use super::{Builder, firmware::Taken};
use crate::{
    digest::{Digest, Inputs},
    error::{Error, IoContext, Result},
    modules::{Kernel, Module},
    pack::{Kind, Pack, Slice, Writer},
    payload::initramfs,
    progress::step,
    root::{content, squashfs, tree::Tree, verity},
};

/// zstd level of the root; figures in `docs/design.md`.
pub(super) const ROOT_LEVEL: u32 = 6;
/// Where the agent lies in the initramfs.
const AGENT: &str = "usr/bin/holdfast-agent";

/// What a root is, beside its bytes.
#[derive(Serialize, Deserialize)]
pub(super) struct RootMeta {
    /// Length of the file system; the tree follows.
    pub(super) fs_len: u64,
    /// dm-verity root hash.
    pub(super) root_hash: Digest,
    /// File system and tree.
    pub(super) len: u64,
    /// Of file system and tree.
    pub(super) digest: Digest,
}

/// Modules for the initramfs, and what stands for them in cache keys.
pub(super) struct BootModules<'a> {
    pub(super) key: &'a Digest,
    pub(super) release: &'a str,
    pub(super) modules: &'a [Module],
    /// What their drivers ask for.
    pub(super) firmware: &'a [Taken],
}

/// Fails with the largest files when a root of `len` bytes does not fit its partition.
fn fits(tree: &Tree, len: u64) -> Result<()> {
    let limit = Role::Root(Slot::A).size();
    if len <= limit {
        return Ok(());
    }
    let largest: Vec<String> = tree
        .largest(5)
        .iter()
        .map(|(path, len)| format!("/{path} {} MiB", len >> 20))
        .collect();
    Err(Error::build(
        "the root",
        format!(
            "is {} MiB, its partition holds {} MiB; the largest files, before compression: {}",
            len >> 20,
            limit >> 20,
            largest.join(", ")
        ),
    ))
}

impl Builder<'_> {
    /// The boot and late modules, decompressed, in load order, and a key that stands for them.
    pub(super) fn modules(&self, kernel: &Kernel) -> Result<(Digest, Vec<Module>, Vec<Module>)> {
        let (board, recipe) = (&self.request.board, &self.request.recipe);
        let late: Vec<String> = board
            .late_modules
            .iter()
            .chain(&recipe.modules)
            .cloned()
            .collect();
        let key = kernel
            .sources()
            .iter()
            .fold(Inputs::of("modules/2"), |inputs, key| inputs.with(key))
            .with(board.boot_modules.join(" "))
            .with(late.join(" "))
            .key();
        step(&*self.progress, "kernel modules", || {
            let (dir, cached) = self.cache.stage("modules", &key, |to| {
                let mut have = BTreeSet::new();
                let boot = kernel.closure(&board.boot_modules, &mut have, |wish, e| {
                    board.origins.blame("modules.boot", wish, e)
                })?;
                let late = kernel.closure(&late, &mut have, |wish, e| {
                    let (field, origins) = match board.late_modules.iter().any(|m| m == wish) {
                        true => ("modules.late", &board.origins),
                        false => ("modules", &recipe.origins),
                    };
                    origins.blame(field, wish, e)
                })?;
                let mut out = Writer::create(to)?;
                for (kind, modules) in [("boot", &boot), ("late", &late)] {
                    for module in modules {
                        let line = module.line(&format!("{kind}/"));
                        out.file(line.trim_end().to_owned(), 0o644, &mut &module.bytes[..])?;
                    }
                }
                out.finish()
            })?;
            let pack = Pack::open(&dir)?;
            let read = |kind: &str| -> Result<Vec<Module>> {
                let prefix = format!("{kind}/");
                let files = pack.entries.iter().filter_map(|e| {
                    match (e.path.strip_prefix(&prefix), &e.kind) {
                        (Some(path), Kind::File { offset, len, .. }) => Some((path, *offset, *len)),
                        _ => None,
                    }
                });
                files
                    .map(|(path, offset, len)| {
                        let (path, parameters) = path.split_once(' ').unwrap_or((path, ""));
                        Ok(Module {
                            path: path.to_owned(),
                            parameters: parameters.to_owned(),
                            bytes: pack.slice(offset, len).read()?,
                        })
                    })
                    .collect()
            };
            Ok(((key, read("boot")?, read("late")?), cached))
        })
    }

    /// File system and verity tree in one file, and what init has to know of it.
    pub(super) fn root(
        &self,
        inputs: &content::Inputs<'_>,
        date: u64,
    ) -> Result<(PathBuf, RootMeta)> {
        step(&*self.progress, "root", || {
            let tree = content::tree(inputs)?;
            let tree_key = tree.key("tree/1");
            let key = Inputs::of("root/1")
                .with(tree_key.0)
                .with(ROOT_LEVEL.to_le_bytes())
                .with(date.to_le_bytes())
                .key();
            let (dir, cached) = self.cache.stage("root", &key, |to| {
                std::fs::create_dir(to).at("create", to)?;
                let image = to.join("image");
                let fs_len = squashfs::write(&tree, ROOT_LEVEL, date, &image)?;
                let mut bytes = std::fs::read(&image).at("read", &image)?;
                let (hashes, root_hash) = verity::tree(&bytes);
                bytes.extend(hashes);
                fits(&tree, bytes.len() as u64)?;
                std::fs::write(&image, &bytes).at("write", &image)?;
                let meta = RootMeta {
                    fs_len,
                    root_hash: Digest(root_hash),
                    len: bytes.len() as u64,
                    digest: Digest::of(&bytes),
                };
                let text = serde_json::to_vec(&meta).map_err(|e| Error::build("root", e))?;
                std::fs::write(to.join("meta.json"), text).at("write", to)
            })?;
            let meta = dir.join("meta.json");
            let bytes = std::fs::read(&meta).at("read", &meta)?;
            let meta = serde_json::from_slice(&bytes).map_err(|e| {
                Error::build(
                    meta.display().to_string(),
                    format!("{e}; delete its folder"),
                )
            })?;
            Ok(((dir.join("image"), meta), cached))
        })
    }

    pub(super) fn initramfs_frames(
        &self,
        boot: &BootModules<'_>,
        date: u32,
    ) -> Result<Vec<Vec<u8>>> {
        step(&*self.progress, "initramfs", || {
            let binaries = &self.request.binaries;
            let BootModules {
                key,
                release,
                modules,
                firmware,
            } = boot;
            let (modules, (init, agent)) = rayon::join(
                || initramfs::modules(self.cache, key, release, date, modules),
                || {
                    rayon::join(
                        || initramfs::program(self.cache, "init", date, &binaries.init),
                        || initramfs::program(self.cache, AGENT, date, &binaries.agent),
                    )
                },
            );
            let mut frames = vec![modules?, init?, agent?];
            if !firmware.is_empty() {
                let files: Vec<(&str, &Slice)> = firmware
                    .iter()
                    .map(|file| (file.path.as_str(), &file.slice))
                    .collect();
                frames.push(initramfs::firmware(self.cache, date, &files)?);
            }
            Ok((frames, false))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_too_large_names_what_is_large() {
        let mut tree = Tree::default();
        tree.file("usr/small", "1");
        tree.file("usr/large", vec![0; 3 << 20]);
        assert!(fits(&tree, 1 << 30).is_ok());
        let e = fits(&tree, (1 << 30) + 1).unwrap_err().to_string();
        assert!(
            e.contains("1024 MiB") && e.contains(": /usr/large 3 MiB, "),
            "{e}"
        );
    }
}
