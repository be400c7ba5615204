//! `holdfast cluster export FILE` and `import FILE`: the directory as one encrypted file, a tar
//! archive inside age's format.

use crate::app::App;
use crate::cluster_dir::{CLUSTER_TOML, ClusterDir, KeyFile};
use crate::exit::Exit;
use crate::files;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::fs::Permissions;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use zeroize::Zeroizing;

/// Most that an archive may unpack to, in bytes, and in files.
const MOST: (u64, usize) = (64 << 20, 10_000);

/// Options of `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  holdfast cluster export home.backup

Holds keys, documents, counters, grants that wait, and the lighthouse's own keys, encrypted with the \
passphrase of the cluster's keys. Not in it: what a lighthouse on this machine stored (members bring \
it back: `holdfast lighthouse restore`), bundles, images, the printed root key.")]
pub struct ExportArgs {
    /// The file to write
    file: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

/// Options of `import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  holdfast cluster import home.backup --dir home

Checks everything before the directory appears: the documents against the roots, the keys against \
the documents. An existing directory is never written over.")]
pub struct ImportArgs {
    /// The file that `export` wrote
    file: PathBuf,
    /// Make the directory here
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Serialize)]
struct Done {
    cluster: String,
    id: String,
    file: PathBuf,
    dir: PathBuf,
    files: usize,
}

/// Whether a file of the directory belongs into a backup: locks, a lighthouse's store and bundles
/// do not, nor what a command was just writing.
fn belongs(name: &str, is_dir: bool) -> bool {
    match is_dir {
        true => name != "blobs",
        false => name != "store.redb" && !name.starts_with('.') && !name.ends_with(".new"),
    }
}

/// Files below `dir`, relative to it, in order; links and devices are none of a cluster's.
fn listed(dir: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let at = dir.join(below);
    let what = || format!("cannot read {}", at.display());
    let entries: std::io::Result<Vec<_>> = std::fs::read_dir(&at).with_context(what)?.collect();
    let mut entries = entries.with_context(what)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (name, kind) = (entry.file_name(), entry.file_type().with_context(what)?);
        let path = below.join(&name);
        if !belongs(&name.to_string_lossy(), kind.is_dir()) {
            continue;
        }
        if kind.is_dir() {
            listed(dir, &path, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// What a cluster keeps at the top of its directory; a user may keep images beside it.
fn own(path: &Path) -> bool {
    let first = path.components().next().map(|c| c.as_os_str().to_owned());
    let first = first.map(|f| f.to_string_lossy().into_owned());
    first.is_some_and(|f| {
        matches!(
            f.as_str(),
            CLUSTER_TOML | "keys" | "documents.json" | "counters.json" | "grants" | "lighthouses"
        ) || f.split('.').next() == Some("lighthouse")
    })
}

fn pack(dir: &Path) -> Result<(Zeroizing<Vec<u8>>, usize)> {
    let mut paths = vec![];
    listed(dir, Path::new(""), &mut paths)?;
    paths.retain(|p| own(p));
    let mut packed = Zeroizing::new(Vec::new());
    let mut tar = tar::Builder::new(&mut *packed);
    for path in &paths {
        let what = || format!("cannot read {}", dir.join(path).display());
        let bytes = Zeroizing::new(std::fs::read(dir.join(path)).with_context(what)?);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, path, bytes.as_slice())
            .with_context(|| format!("packing {}", path.display()))?;
    }
    tar.into_inner().context("packing")?;
    Ok((packed, paths.len()))
}

/// Unpacks into `dir`, which is empty: files and nothing else, below it and nowhere else.
fn unpack(archive: &[u8], dir: &Path) -> Result<usize> {
    let (mut left, mut count) = (MOST.0, 0);
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        let size = entry.size();
        if !entry.header().entry_type().is_file() || !plain || !own(&path) {
            bail!("it holds {}, which no backup of ours has", path.display());
        }
        count += 1;
        left = left
            .checked_sub(size)
            .filter(|_| count <= MOST.1)
            .context("it unpacks to more than a cluster's directory has")?;
        let mut bytes = Zeroizing::new(Vec::new());
        entry.by_ref().take(size).read_to_end(&mut bytes)?;
        let to = dir.join(&path);
        files::make_private_dir(to.parent().unwrap_or(dir))?;
        if to.exists() {
            bail!("it holds {} twice", path.display());
        }
        files::write_secret(&to, &bytes)?;
    }
    Ok(count)
}

/// That the directory is whole, and its keys are those that its documents name.
fn check(app: &App, cluster: &ClusterDir) -> Result<()> {
    let documents = cluster.documents()?;
    cluster.counters()?;
    let release_keys = cluster.release_keys()?;
    let stands = |which| cluster.key(which).exists();
    let strange = |what: &str| Exit::Refused.error(format!("{what}: the backup is not whole"));
    if stands(KeyFile::Root) {
        let key = app.passphrase.open(&cluster.key(KeyFile::Root))?.public();
        if !cluster.roots().contains(&key) {
            return Err(strange("keys/root.age is no root of this cluster"));
        }
    }
    let key = app.passphrase.open(&cluster.key(KeyFile::Operator))?;
    if documents.operators.by_key(&key.public()).is_none() {
        return Err(strange("keys/operator.age is no operator of this cluster"));
    }
    if stands(KeyFile::Release) {
        let key = app
            .passphrase
            .open(&cluster.key(KeyFile::Release))?
            .public();
        if !release_keys.contains(&key) {
            return Err(strange(
                "keys/release.age is no release key of this cluster",
            ));
        }
    }
    for lighthouse in &documents.lighthouses.lighthouses {
        let dir = cluster.lighthouse_of(lighthouse);
        if dir.exists() {
            holdfast_lighthouse::LighthouseDir::open(&dir)?.keys()?;
        }
    }
    Ok(())
}

/// Runs `export`.
pub fn export(app: &App, args: &ExportArgs) -> Result<()> {
    let cluster = app.cluster()?;
    if args.file.exists() && !args.force {
        return Err(Exit::Usage.error(format!(
            "{} exists; give --force to write over it",
            args.file.display()
        )));
    }
    files::can_write(&args.file)?;
    let _lock = cluster.lock()?;
    // The passphrase that opens the keys, and not one mistyped, is the backup's.
    check(app, &cluster)?;
    let (tar, count) = pack(&cluster.path)?;
    let bytes = app.passphrase.encrypt(&tar).context("encrypting")?;
    files::write_secret(&args.file, &bytes)?;
    let done = Done {
        cluster: cluster.config.name.to_string(),
        id: cluster.config.id.to_string(),
        file: args.file.clone(),
        dir: cluster.path.clone(),
        files: count,
    };
    app.print(&done, || {
        format!(
            "{}: {count} files of cluster {}, encrypted with the passphrase of its keys.\nKeep it off this machine; `holdfast cluster import` makes the directory again.",
            done.file.display(),
            done.cluster
        )
    })
}

/// Runs `import`.
pub fn import(app: &App, args: &ImportArgs) -> Result<()> {
    let (dir, file) = (&args.dir, &args.file);
    if dir.symlink_metadata().is_ok() {
        return Err(Exit::Usage.error(format!(
            "{} exists; nothing was changed. Give another --dir",
            dir.display()
        )));
    }
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let archive = app.passphrase.decrypt(file, &bytes)?;
    let beside = match dir.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let fresh = tempfile::Builder::new()
        .prefix(".holdfast-import-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(beside)
        .with_context(|| format!("cannot make a directory in {}", beside.display()))?;
    let wrong = || format!("{} cannot be used; nothing was changed", file.display());
    let count = unpack(&archive, fresh.path()).with_context(wrong)?;
    let cluster = ClusterDir::at(fresh.path()).with_context(wrong)?;
    check(app, &cluster).with_context(wrong)?;
    files::make_private_dir(&fresh.path().join("grants"))?;
    // Whole or not at all; a directory that appeared meanwhile and is not empty stays.
    std::fs::rename(fresh.keep(), dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let done = Done {
        cluster: cluster.config.name.to_string(),
        id: cluster.config.id.to_string(),
        file: file.clone(),
        dir: dir.clone(),
        files: count,
    };
    app.print(&done, || {
        format!(
            "{} holds cluster {} again ({count} files); all keys and documents fit.",
            done.dir.display(),
            done.cluster
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(path: &str, kind: tar::EntryType) -> Vec<u8> {
        let mut tar = tar::Builder::new(vec![]);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(1);
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn only_plain_files_of_a_cluster_are_unpacked() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("in");
        std::fs::create_dir(&dir).unwrap();
        let file = tar::EntryType::Regular;
        for (path, kind) in [
            ("../cluster.toml", file),
            ("/etc/cluster.toml", file),
            ("keys/../../x", file),
            ("elsewhere", file),
            ("keys/x", tar::EntryType::Symlink),
            ("keys/x", tar::EntryType::Link),
        ] {
            let bytes = archive(path, kind);
            assert!(unpack(&bytes, &dir).is_err(), "{path} {kind:?}");
        }
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 1);
        assert_eq!(unpack(&archive("keys/x", file), &dir).unwrap(), 1);
        assert!(unpack(&archive("keys/x", file), &dir).is_err());
    }
}
