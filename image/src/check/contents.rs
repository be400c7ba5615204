//! What only the locked packages tell: their files, the kernel's modules, their size.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    board::Board, cache::Cache, deb, error::Result, lock::Lock, modules::Kernel, pack::Kind,
    recipe::Recipe, root::tree::removed,
};

/// What the packages of a recipe hold for one board.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Files and links of the root that packages bring, after `remove`, with the package.
    pub files: BTreeMap<String, String>,
    /// The kernel's modules, built in or not, with `_` for `-`.
    pub modules: BTreeSet<String>,
    /// Bytes of these files, before compression.
    pub bytes: u64,
}

impl Contents {
    /// Reads them from the cache; `recipe` is resolved for the board.
    ///
    /// # Errors
    /// Why they are not known: no lock that fits, or packages that are not in the cache.
    pub fn of(recipe: &Recipe, board: &Board, cache: &Cache) -> Result<Self, String> {
        let lock = Lock::read(recipe, board).map_err(|e| e.to_string())?;
        let (root, kernel): (Vec<_>, Vec<_>) = (
            lock.root_packages(board.arch).collect(),
            lock.board_packages(&board.name).collect(),
        );
        let missing = root
            .iter()
            .chain(&kernel)
            .filter(|p| !cache.object(&p.sha256).exists())
            .count();
        if missing > 0 {
            return Err(format!(
                "{missing} of its packages are not in the cache; `holdfast build` downloads them"
            ));
        }
        let mut contents = Self::default();
        let mut read = || -> Result<()> {
            for package in &root {
                let (pack, _) = deb::unpacked(cache, package)?;
                for entry in &pack.entries {
                    let len = match &entry.kind {
                        Kind::Dir { .. } => continue,
                        Kind::Link { .. } => 0,
                        Kind::File { len, .. } => *len,
                    };
                    if !recipe.remove.iter().any(|p| removed(p, &entry.path)) {
                        contents.bytes += len;
                        let path = entry.path.clone();
                        contents.files.insert(path, package.name.clone());
                    }
                }
            }
            let packs = kernel
                .iter()
                .map(|package| deb::unpacked(cache, package).map(|(pack, _)| pack))
                .collect::<Result<Vec<_>>>()?;
            if let Ok(kernel) = Kernel::new(&packs) {
                contents.modules.extend(kernel.names().map(str::to_owned));
            }
            Ok(())
        };
        read().map_err(|e| e.to_string())?;
        Ok(contents)
    }
}
