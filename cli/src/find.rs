//! Where recipes, boards and the programs for nodes are.

use crate::exit::Exit;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// Folders that may hold `recipes/` and `boards/`: the current one, those above the program (a
/// checkout), and where a package would put them.
fn roots() -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from(".")];
    if let Ok(exe) = std::env::current_exe() {
        roots.extend(
            exe.ancestors()
                .skip(1)
                .map(Path::to_path_buf)
                .filter(|p| p.parent().is_some()),
        );
    }
    roots.push("/usr/share/holdfast".into());
    roots
}

/// The file of a recipe or board: `what` as a path, or as a name in a folder `kind`.
pub fn definition(kind: &str, what: &str) -> Result<PathBuf> {
    let path = Path::new(what);
    if what.contains('/') || what.ends_with(".toml") {
        return if path.is_file() {
            Ok(path.to_path_buf())
        } else {
            Err(Exit::Usage.error(format!("there is no file {what}")))
        };
    }
    let file = format!("{what}.toml");
    let folders: Vec<PathBuf> = roots()
        .into_iter()
        .map(|r| r.join(kind))
        .filter(|d| d.is_dir())
        .collect();
    if let Some(found) = folders.iter().map(|d| d.join(&file)).find(|p| p.is_file()) {
        return Ok(found);
    }
    let mut known: Vec<String> = folders.iter().flat_map(|d| names(d)).collect();
    known.sort();
    known.dedup();
    let known = if known.is_empty() {
        format!("no folder {kind}/ is here: run this in a checkout, or give the file's path")
    } else {
        format!("there are {}", known.join(", "))
    };
    Err(Exit::Usage.error(format!("no {kind}/{file}: {known}")))
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return vec![];
    };
    entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .filter_map(|p| Some(p.file_stem()?.to_str()?.to_string()))
        .collect()
}

/// Every board that is known, by its file.
pub fn all_boards() -> Result<Vec<PathBuf>> {
    let dir = roots()
        .into_iter()
        .map(|r| r.join("boards"))
        .find(|d| d.is_dir());
    let dir =
        dir.context("no folder boards/ is here: run this in a checkout, or give --board PATH")?;
    let mut all: Vec<PathBuf> = names(&dir)
        .into_iter()
        .map(|n| dir.join(format!("{n}.toml")))
        .collect();
    all.sort();
    Ok(all)
}

/// A program for nodes: as given, else in `HOLDFAST_NODE_BINARIES`, else in `node/ARCH` beside
/// this program.
pub fn node_binary(given: Option<&Path>, arch: &str, file: &str) -> Result<PathBuf> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_path_buf())
        } else {
            Err(Exit::Usage.error(format!("there is no file {}", path.display())))
        };
    }
    let mut folders = vec![];
    if let Some(dir) = std::env::var_os("HOLDFAST_NODE_BINARIES") {
        folders.extend([PathBuf::from(&dir), Path::new(&dir).join(arch)]);
    } else if let Ok(exe) = std::env::current_exe()
        && let Some(dir) = exe.parent()
    {
        folders.push(dir.join("node").join(arch));
    }
    folders
        .iter()
        .map(|d| d.join(file))
        .find(|p| p.is_file())
        .ok_or_else(|| {
            let tried: Vec<String> = folders.iter().map(|d| d.display().to_string()).collect();
            Exit::Failed.error(format!(
            "{file} for {arch} is not in {}: `make node` builds it (or set HOLDFAST_NODE_BINARIES)",
            tried.join(", ")
        ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_there_is() {
        let error = crate::exit::describe(&definition("recipes", "no-such").unwrap_err());
        assert!(error.contains("recipes/no-such.toml"), "{error}");
        let error = definition("recipes", "./no-such.toml")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no file"), "{error}");
    }
}
