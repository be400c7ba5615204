//! Where recipes, boards and the programs for nodes are.

use crate::exit::Exit;
use anyhow::{Context as _, Result};
use holdfast_image::{Recipe, near};
use std::path::{Path, PathBuf};

/// Where `recipes/` and `boards/` are, for a program that is used away from its checkout.
const SHARE: &str = "HOLDFAST_SHARE";
/// Where the programs for nodes are.
const NODE_BINARIES: &str = "HOLDFAST_NODE_BINARIES";

/// A folder that the environment names.
fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

/// Folders that may hold `recipes/` and `boards/`: the current one, `share`, the checkout that the
/// program was built in, and where a package would put them.
fn roots(share: Option<PathBuf>, program: Option<&Path>) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from(".")];
    roots.extend(share);
    roots.extend(program.and_then(checkout).map(Path::to_path_buf));
    roots.push("/usr/share/holdfast".into());
    roots
}

/// The roots for this run.
fn here() -> Vec<PathBuf> {
    roots(named(SHARE), std::env::current_exe().ok().as_deref())
}

/// The checkout of a program that lies where cargo puts it. No other folder above it is looked at:
/// what lies there belongs to something else.
fn checkout(program: &Path) -> Option<&Path> {
    let target = |p: &&Path| p.file_name().is_some_and(|name| name == "target");
    program.ancestors().find(target)?.parent()
}

/// What to do where no folder `kind` is.
fn nowhere(kind: &str) -> String {
    let looked: Vec<String> = here()
        .iter()
        .map(|r| r.join(kind).display().to_string())
        .collect();
    format!(
        "there is no {}: set {SHARE} to the checkout (or run this in it), or give the file's path",
        looked.join(", no ")
    )
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
    let folders = folders(kind);
    if let Some(found) = folders.iter().map(|d| d.join(&file)).find(|p| p.is_file()) {
        return Ok(found);
    }
    let known = there_are(what, &known(&folders)).unwrap_or_else(|| nowhere(kind));
    Err(Exit::Usage.error(format!("no {kind}/{file}: {known}")))
}

/// What there is instead of `wanted`; nothing where it is known, or where nothing is.
fn there_are(wanted: &str, known: &[String]) -> Option<String> {
    if known.is_empty() || known.iter().any(|k| k == wanted) {
        return None;
    }
    let meant = near::hint(wanted, known.iter().map(String::as_str));
    Some(format!("there are {}{meant}", known.join(", ")))
}

/// The names in these folders.
fn known(folders: &[PathBuf]) -> Vec<String> {
    let mut known: Vec<String> = folders.iter().flat_map(|d| names(d)).collect();
    known.sort();
    known.dedup();
    known
}

/// The name of a board that is given by its name or its file. Where no boards are at hand any name
/// is taken.
pub fn board_name(what: &str) -> Result<String> {
    let folders = folders("boards");
    let by_name = !what.contains('/') && !what.ends_with(".toml");
    if by_name && known(&folders).is_empty() {
        return Ok(what.into());
    }
    let file = definition("boards", what)?;
    let name = file.file_stem().and_then(|n| n.to_str());
    Ok(name.unwrap_or(what).into())
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

/// A recipe, given as its name or its file; the recipes that it extends may be beside it or where
/// the shipped ones are.
pub fn recipe(what: &str) -> Result<Recipe> {
    Ok(Recipe::read_among(
        &definition("recipes", what)?,
        &folders("recipes"),
    )?)
}

/// Every folder `kind` there is, the first one winning.
fn folders(kind: &str) -> Vec<PathBuf> {
    here()
        .into_iter()
        .map(|r| r.join(kind))
        .filter(|d| d.is_dir())
        .collect()
}

/// Every recipe of the first folder that has any, by its file.
pub fn all_recipes() -> Vec<PathBuf> {
    let dir = folders("recipes").into_iter().next();
    let mut all: Vec<PathBuf> = dir
        .iter()
        .flat_map(|dir| {
            names(dir)
                .into_iter()
                .map(|n| dir.join(format!("{n}.toml")))
        })
        .collect();
    all.sort();
    all
}

/// The files of these boards, given as names or files; without any, of every board that is known.
pub fn boards(named: &[String]) -> Result<Vec<PathBuf>> {
    if named.is_empty() {
        return all_boards();
    }
    named.iter().map(|b| definition("boards", b)).collect()
}

/// Every board that is known, by its file.
fn all_boards() -> Result<Vec<PathBuf>> {
    let dir = folders("boards").into_iter().next();
    let dir = dir.with_context(|| nowhere("boards"))?;
    let mut all: Vec<PathBuf> = names(&dir)
        .into_iter()
        .map(|n| dir.join(format!("{n}.toml")))
        .collect();
    all.sort();
    Ok(all)
}

/// Where programs for nodes may be, the last one winning: beside this program, then where the
/// environment says, so that it can stand in for some of them.
fn node_folders(arch: &str, beside: Option<&Path>, named: Option<&Path>) -> Vec<PathBuf> {
    let mut folders = vec![];
    folders.extend(beside.map(|dir| dir.join("node").join(arch)));
    if let Some(dir) = named {
        folders.extend([dir.to_path_buf(), dir.join(arch)]);
    }
    folders
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
    let exe = std::env::current_exe().ok();
    let beside = exe.as_deref().and_then(Path::parent);
    let folders = node_folders(arch, beside, named(NODE_BINARIES).as_deref());
    last_with(&folders, file).ok_or_else(|| {
        let tried: Vec<String> = folders.iter().map(|d| d.display().to_string()).collect();
        Exit::Failed.error(format!(
            "{file} for {arch} is not in {}: `make node` in the checkout builds it. A copy of this program \
             needs {SHARE}=CHECKOUT and {NODE_BINARIES}=CHECKOUT/target/release/node",
            tried.join(", ")
        ))
    })
}

fn last_with(folders: &[PathBuf], file: &str) -> Option<PathBuf> {
    folders
        .iter()
        .rev()
        .map(|d| d.join(file))
        .find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_there_is() {
        let error = crate::exit::describe(&definition("recipes", "no-such").unwrap_err());
        assert!(error.contains("recipes/no-such.toml"), "{error}");
        let known = ["arm64".into(), "rpi3".into(), "rpi4".into()];
        assert_eq!(there_are("rpi4", &known), None);
        let words = there_are("rpi9", &known).unwrap();
        assert_eq!(words, "there are arm64, rpi3, rpi4; did you mean \"rpi3\"?");
        let error = definition("recipes", "./no-such.toml")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no file"), "{error}");
    }

    #[test]
    fn the_environment_comes_between_here_and_the_program() {
        let roots = |program| roots(Some("/share".into()), Some(Path::new(program)));
        let at = |folders: &[&str]| folders.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            roots("/src/holdfast/target/release/holdfast"),
            at(&[".", "/share", "/src/holdfast", "/usr/share/holdfast"])
        );
        // Not what happens to lie above a copy.
        assert_eq!(
            roots("/tmp/x/bin/holdfast"),
            at(&[".", "/share", "/usr/share/holdfast"])
        );
        let words = nowhere("recipes");
        assert!(
            words.contains("./recipes, no ") && words.contains(SHARE),
            "{words}"
        );
    }

    #[test]
    fn a_board_has_its_files_name() {
        assert_eq!(board_name("rpi4").unwrap(), "rpi4");
        let error = board_name("rpi9").unwrap_err();
        assert_eq!(crate::exit::code_of(&error), 2);
        assert!(error.to_string().contains("did you mean"), "{error}");
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("mine.toml");
        std::fs::write(&file, "").unwrap();
        assert_eq!(board_name(file.to_str().unwrap()).unwrap(), "mine");
    }

    #[test]
    fn a_program_that_is_named_wins_over_the_one_beside() {
        let tmp = tempfile::tempdir().unwrap();
        let (beside, named) = (tmp.path().join("bin"), tmp.path().join("named"));
        let own = beside.join("node/x86_64");
        for (dir, file) in [(&own, "init"), (&own, "agent"), (&named, "agent")] {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::write(dir.join(file), "").unwrap();
        }
        let folders = node_folders("x86_64", Some(&beside), Some(&named));
        assert_eq!(last_with(&folders, "agent"), Some(named.join("agent")));
        assert_eq!(last_with(&folders, "init"), Some(own.join("init")));
        assert_eq!(last_with(&folders, "loader"), None);
    }
}
