//! What an image asks each node to make for itself below `/var` and `/run`: folders, files that hold
//! the node's machine id, links. What is there is left as it is.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use holdfast_core::image::{MACHINE_ID, Provided, ProvidedKind};

/// Where things may be made.
const PLACES: [&str; 2] = ["/var", "/run"];

/// Makes what the list asks for; returns what failed, in words. Without the file there is nothing to
/// do.
pub fn apply(list: &Path, machine_id: &str) -> Vec<String> {
    let Ok(text) = fs::read_to_string(list) else {
        return Vec::new();
    };
    match serde_json::from_str::<Vec<Provided>>(&text) {
        Ok(all) => all
            .iter()
            .filter_map(|one| {
                let result = match allowed(&one.path) {
                    true => make(Path::new(&one.path), &one.what, machine_id),
                    false => Err(io::Error::other("lies neither below /var nor below /run")),
                };
                result.err().map(|e| format!("{}: {e}", one.path))
            })
            .collect(),
        Err(error) => vec![format!("{}: {error}", list.display())],
    }
}

fn allowed(path: &str) -> bool {
    let path = Path::new(path);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    plain
        && PLACES
            .iter()
            .any(|place| path.starts_with(place) && path != Path::new(place))
}

fn make(path: &Path, what: &ProvidedKind, machine_id: &str) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    match what {
        ProvidedKind::Dir => fs::create_dir_all(path),
        ProvidedKind::Link { target } => {
            parent(path)?;
            symlink(target, path)
        }
        ProvidedKind::File {
            content,
            executable,
        } => {
            parent(path)?;
            if content.contains(MACHINE_ID) && machine_id.is_empty() {
                return Err(io::Error::other("this node has no machine id yet"));
            }
            let text = content.replace(MACHINE_ID, machine_id);
            write_whole(path, &text, if *executable { 0o755 } else { 0o644 })
        }
    }
}

fn parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// A power cut leaves no half of it: it would never be made again.
fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh: PathBuf = path.with_file_name(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> ProvidedKind {
        ProvidedKind::File {
            content: content.into(),
            executable: false,
        }
    }

    #[test]
    fn only_what_no_image_can_hold() {
        for good in ["/var/lib/iscsi", "/run/lock"] {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "/var",
            "/run",
            "/etc/x",
            "var/x",
            "/var/../etc/x",
            "/variable/x",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_there_stays_and_the_id_is_the_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/name");
        assert!(make(&path, &file("iqn:{machine-id}\n"), "").is_err());
        make(&path, &file("iqn:{machine-id}\n"), "0123").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "iqn:0123\n");
        make(&path, &file("other"), "0123").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "iqn:0123\n");
        make(&dir.path().join("b/c"), &ProvidedKind::Dir, "").unwrap();
        let link = ProvidedKind::Link {
            target: "../nowhere".into(),
        };
        make(&dir.path().join("d/e"), &link, "").unwrap();
        // A link that leads nowhere is there, too.
        make(&dir.path().join("d/e"), &link, "").unwrap();
        assert!(dir.path().join("b/c").is_dir());
    }

    #[test]
    fn one_that_fails_does_not_keep_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        let all = [
            Provided {
                path: "/etc/x".into(),
                what: ProvidedKind::Dir,
            },
            Provided {
                path: "/var/../x".into(),
                what: ProvidedKind::Dir,
            },
        ];
        fs::write(&list, serde_json::to_vec(&all).unwrap()).unwrap();
        assert_eq!(apply(&list, "").len(), 2);
        fs::write(&list, "nonsense").unwrap();
        assert_eq!(apply(&list, "").len(), 1);
        assert!(apply(&dir.path().join("none"), "").is_empty());
    }
}
