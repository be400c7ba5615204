//! What the image's recipe ships for k3s, brought to where k3s looks for it (docs.k3s.io: "Air-Gap
//! Install", "Managing Packaged Components", "Multiple Config Files").
//!
//! | in the root | for k3s | how |
//! |---|---|---|
//! | `K3S_IMAGES` | `agent/images/` | links; a file of that name that is no link of ours stays |
//! | `K3S_MANIFESTS` | `server/manifests/holdfast/` | copies; the folder is the image's own |
//! | `K3S_CONFIG` | `config.yaml.d/50-image.yaml` | a copy; the file is the image's own |
//!
//! What an older image shipped and this one does not is taken away. k3s itself does not delete from
//! the cluster what a manifest created when its file goes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use holdfast_core::image::{K3S_CONFIG, K3S_IMAGES, K3S_MANIFESTS};

use super::files::put;

const IMAGES: &str = "/var/lib/rancher/k3s/agent/images";
const MANIFESTS: &str = "/var/lib/rancher/k3s/server/manifests/holdfast";
const CONFIG: &str = "/etc/rancher/k3s/config.yaml.d/50-image.yaml";

/// Brings all of it; returns what an operator should know.
///
/// # Errors
/// When something cannot be read or written.
pub fn bring() -> anyhow::Result<Vec<String>> {
    let notes = link_images(Path::new(K3S_IMAGES), Path::new(IMAGES)).context("images for k3s")?;
    own_folder(Path::new(K3S_MANIFESTS), Path::new(MANIFESTS)).context("manifests for k3s")?;
    own_file(Path::new(K3S_CONFIG), Path::new(CONFIG)).context("k3s's configuration")?;
    Ok(notes)
}

/// The files in a folder, by name; none where it is not there.
fn listed(folder: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(e),
    };
    entries
        .map(|entry| {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, entry.path()))
        })
        .collect()
}

fn link_images(from: &Path, to: &Path) -> io::Result<Vec<String>> {
    let images = listed(from)?;
    // Links of an image that has other ones.
    for (name, old) in listed(to)? {
        let ours = fs::read_link(&old).is_ok_and(|target| target.starts_with(from));
        if ours && !images.contains_key(&name) {
            fs::remove_file(old)?;
        }
    }
    if images.is_empty() {
        return Ok(Vec::new());
    }
    fs::create_dir_all(to)?;
    let mut notes = Vec::new();
    for (name, image) in images {
        let link = to.join(&name);
        match link.symlink_metadata() {
            Err(_) => std::os::unix::fs::symlink(&image, &link)?,
            Ok(_) if fs::read_link(&link).is_ok_and(|target| target == image) => {}
            Ok(_) => notes.push(format!(
                "{} is not the image's {name}: it stays, the image's is not imported",
                link.display()
            )),
        }
    }
    Ok(notes)
}

/// Makes the folder `to` hold what `from` holds, and nothing else.
fn own_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    let shipped = listed(from)?;
    for (name, old) in listed(to)? {
        if !shipped.contains_key(&name) {
            let folder = old.symlink_metadata().is_ok_and(|m| m.is_dir());
            let gone = if folder {
                fs::remove_dir_all(&old)
            } else {
                fs::remove_file(&old)
            };
            gone.with_context(|| old.display().to_string())?;
        }
    }
    for (name, file) in shipped {
        own_file(&file, &to.join(name))?;
    }
    Ok(())
}

/// Makes `to` a copy of `from`, or takes it away.
fn own_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    match fs::read_to_string(from) {
        Ok(text) => put(to, &text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => match fs::remove_file(to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).with_context(|| to.display().to_string())
            }
            _ => Ok(()),
        },
        Err(e) => Err(e).with_context(|| from.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        listed(folder).unwrap().into_keys().collect()
    }

    #[test]
    fn links_follow_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        assert!(link_images(&from, &to).unwrap().is_empty() && !to.exists());
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("a.tar"), "").unwrap();
        link_images(&from, &to).unwrap();
        fs::write(to.join("own.tar"), "mine").unwrap();
        fs::remove_file(from.join("a.tar")).unwrap();
        fs::write(from.join("b.tar"), "").unwrap();
        link_images(&from, &to).unwrap();
        assert_eq!(names(&to), ["b.tar", "own.tar"]);
        // A user's own file of that name stays, and k3s starts.
        fs::write(from.join("own.tar"), "").unwrap();
        let notes = link_images(&from, &to).unwrap();
        assert!(notes[0].contains("own.tar"), "{notes:?}");
        assert_eq!(fs::read_to_string(to.join("own.tar")).unwrap(), "mine");
        // An image without any.
        fs::remove_dir_all(&from).unwrap();
        link_images(&from, &to).unwrap();
        assert_eq!(names(&to), ["own.tar"]);
    }

    #[test]
    fn the_images_folder_follows_it_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (from, top) = (dir.path().join("from"), dir.path().join("manifests"));
        let to = top.join("holdfast");
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&top).unwrap();
        fs::write(top.join("mine.yaml"), "kind: Mine").unwrap();
        fs::write(from.join("a.yaml"), "kind: A").unwrap();
        fs::write(from.join("b.yaml"), "kind: B").unwrap();
        own_folder(&from, &to).unwrap();
        assert_eq!(names(&to), ["a.yaml", "b.yaml"]);
        fs::remove_file(from.join("a.yaml")).unwrap();
        fs::write(from.join("b.yaml"), "kind: C").unwrap();
        own_folder(&from, &to).unwrap();
        assert_eq!(names(&to), ["b.yaml"]);
        assert_eq!(fs::read_to_string(to.join("b.yaml")).unwrap(), "kind: C");
        fs::remove_dir_all(&from).unwrap();
        own_folder(&from, &to).unwrap();
        assert!(names(&to).is_empty());
        assert_eq!(names(&top), ["holdfast", "mine.yaml"]);
    }

    #[test]
    fn a_file_comes_and_goes_with_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("d/to.yaml"));
        own_file(&from, &to).unwrap();
        fs::write(&from, "a: 1\n").unwrap();
        own_file(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "a: 1\n");
        fs::remove_file(&from).unwrap();
        own_file(&from, &to).unwrap();
        assert!(!to.exists());
    }
}
