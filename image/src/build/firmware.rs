//! What a board takes out of its packages beside kernel and stub: firmware for drivers, microcode,
//! device trees, and what the ESP holds for a firmware that is read from the disk.

use super::Builder;
use crate::{
    board::{Board, EspContent},
    disk::u_boot_env,
    error::{Error, Result},
    pack::{Kind, Pack, Slice},
    payload::cpio::Cpio,
};

/// A file for the initramfs, the root or the ESP.
pub(crate) struct Taken {
    pub(crate) path: String,
    pub(crate) slice: Slice,
}

/// How often a link may lead to a link.
const LINKS: usize = 8;

/// The files of `packs` that `pattern` names, links followed.
fn matching(packs: &[Pack], pattern: &str) -> Result<Vec<Taken>> {
    let wanted = |path: &str| match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    };
    let mut taken = Vec::new();
    for pack in packs {
        for entry in pack.entries.iter().filter(|e| wanted(&e.path)) {
            if matches!(entry.kind, Kind::Dir { .. }) {
                continue;
            }
            if let Some(slice) = follow(packs, &entry.path, LINKS) {
                taken.push(Taken {
                    path: entry.path.clone(),
                    slice,
                });
            } else if pattern == entry.path {
                return Err(Error::build(
                    format!("firmware {pattern}"),
                    "is a link to a file that no package of the board has",
                ));
            }
        }
    }
    match taken.is_empty() {
        false => Ok(taken),
        true => Err(missing(packs, pattern)),
    }
}

fn follow(packs: &[Pack], path: &str, left: usize) -> Option<Slice> {
    let found = packs.iter().find_map(|pack| {
        let entry = pack.entries.iter().find(|e| e.path == path)?;
        Some((pack, &entry.kind))
    });
    match found? {
        (pack, Kind::File { offset, len, .. }) => Some(pack.slice(*offset, *len)),
        (_, Kind::Link { target }) if left > 0 => follow(packs, &resolved(path, target), left - 1),
        _ => None,
    }
}

/// Where a link at `path` leads.
fn resolved(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => path.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn missing(packs: &[Pack], pattern: &str) -> Error {
    let name = pattern.rsplit('/').next().unwrap_or(pattern);
    let stem = name.split(['-', '.', '_', '*']).next().unwrap_or(name);
    let near: Vec<&str> = packs
        .iter()
        .flat_map(|p| &p.entries)
        .map(|e| e.path.as_str())
        .filter(|path| {
            !stem.is_empty()
                && path
                    .rsplit('/')
                    .next()
                    .is_some_and(|last| last.starts_with(stem))
        })
        .take(4)
        .collect();
    let hint = match near.is_empty() {
        true => String::new(),
        false => format!("; they have {}", near.join(", ")),
    };
    Error::build(
        format!("file {pattern}"),
        format!("none of the board's packages has it{hint}"),
    )
}

impl Builder<'_> {
    fn board(&self) -> &Board {
        &self.request.board
    }

    fn taken(
        &self,
        packs: &[Pack],
        field: &'static str,
        patterns: &[String],
    ) -> Result<Vec<Taken>> {
        let mut all = Vec::new();
        for pattern in patterns {
            let found = matching(packs, pattern)
                .map_err(|e| self.board().origins.blame(field, pattern, e))?;
            all.extend(found);
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all.dedup_by(|a, b| a.path == b.path);
        Ok(all)
    }

    /// Firmware that drivers ask for before the root is there, and in rescue.
    pub(super) fn initramfs_firmware(&self, packs: &[Pack]) -> Result<Vec<Taken>> {
        let patterns = &self.board().initramfs_firmware;
        self.taken(packs, "firmware.initramfs", patterns)
    }

    /// Firmware that drivers ask for later.
    pub(super) fn root_firmware(&self, packs: &[Pack]) -> Result<Vec<Taken>> {
        self.taken(packs, "firmware.root", &self.board().root_firmware)
    }

    /// The archive that the kernel takes microcode from before anything else (Linux
    /// `Documentation/arch/x86/microcode.rst`): the updates of one maker, one after another.
    pub(super) fn microcode(&self, packs: &[Pack], date: u32) -> Result<Option<Vec<u8>>> {
        let wanted = &self.board().microcode;
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut cpio = Cpio::new(date);
        for (name, pattern) in wanted {
            let mut bytes = Vec::new();
            for file in self.taken(packs, "firmware.microcode", std::slice::from_ref(pattern))? {
                // Beside the updates lie notes and signatures.
                if !file.path.ends_with(".asc") && !file.path.ends_with("README") {
                    bytes.extend(file.slice.read()?);
                }
            }
            cpio.file(&format!("kernel/x86/microcode/{name}"), 0o644, &bytes);
        }
        Ok(Some(cpio.finish()))
    }

    /// The device trees that the UKI brings.
    pub(super) fn device_trees(&self, packs: &[Pack], release: &str) -> Result<Vec<Vec<u8>>> {
        let wanted = &self.board().device_trees;
        let one = |pattern: &String| {
            let path = pattern.replace("{release}", release);
            let slice = follow(packs, &path, LINKS).ok_or_else(|| {
                let origins = &self.board().origins;
                origins.blame("boot.device_trees", pattern, missing(packs, &path))
            })?;
            slice.read()
        };
        wanted.iter().map(one).collect()
    }

    /// Path and bytes of what the ESP holds beside the loader.
    pub(super) fn esp_files(
        &self,
        packs: &[Pack],
        release: &str,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        for file in &self.board().esp {
            match &file.content {
                EspContent::Text(text) => files.push((file.path.clone(), text.clone().into())),
                EspContent::UBootEnv(variables) => {
                    files.push((file.path.clone(), u_boot_env::file(variables)?));
                }
                EspContent::Package(pattern) => {
                    let path = pattern.replace("{release}", release);
                    let found = matching(packs, &path)
                        .map_err(|e| self.board().origins.blame("esp.from", pattern, e))?;
                    for taken in found {
                        let name = taken.path.rsplit('/').next().unwrap_or(&taken.path);
                        let to = match (pattern.ends_with('*'), file.path.as_str()) {
                            (false, path) => path.to_owned(),
                            (true, ".") => name.to_owned(),
                            (true, folder) => format!("{folder}/{name}"),
                        };
                        files.push((to, taken.slice.read()?));
                    }
                }
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::Writer;

    #[test]
    fn links_are_followed_and_missing_files_have_neighbours_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("pack");
        let mut writer = Writer::create(&at).unwrap();
        writer.dir("usr/lib/firmware/brcm".into(), 0o755);
        writer
            .file(
                "usr/lib/firmware/cypress/a.bin".into(),
                0o644,
                &mut &b"abc"[..],
            )
            .unwrap();
        writer.link(
            "usr/lib/firmware/brcm/b.bin".into(),
            "../cypress/a.bin".into(),
        );
        writer.link("usr/lib/firmware/brcm/loop.bin".into(), "loop.bin".into());
        writer.finish().unwrap();
        let packs = [Pack::open(&at).unwrap()];
        let found = matching(&packs, "usr/lib/firmware/brcm/*").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "usr/lib/firmware/brcm/b.bin");
        assert_eq!(found[0].slice.read().unwrap(), b"abc");
        let e = matching(&packs, "usr/lib/firmware/brcm/a.bin")
            .err()
            .unwrap();
        assert!(e.to_string().contains("cypress/a.bin"), "{e}");
        assert!(matching(&packs, "usr/lib/firmware/brcm/loop.bin").is_err());
        assert_eq!(resolved("a/b/c", "/x/../y"), "y");
    }
}
