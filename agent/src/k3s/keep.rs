//! k3s's datastore is copied inside `/var` before a trial that brings another k3s, and put back
//! when the node went back: "if you cannot restore the database, you cannot roll back to a
//! previous minor version" (decision 11).

use anyhow::Context as _;
use holdfast_core::image::K3sInfo;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// The datastore of a server.
pub const DATASTORE: &str = "/var/lib/rancher/k3s/server/db";
/// Where the copy is kept.
pub const KEPT: &str = "/var/lib/holdfast/k3s-kept";

/// Says what the copy is of; without it there is none.
const NOTE: &str = "of.json";

/// What the copy is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The k3s that wrote it.
    pub k3s: K3sInfo,
    /// The boot in which it was made.
    pub boot_id: String,
}

/// What to do with a copy at a start of k3s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing yet.
    Leave,
    /// The node went back: put it in place.
    Restore,
    /// The newer k3s is there to stay: it is of no use any more.
    Drop,
}

/// Decides. `may_go_back`: the running slot is on trial or on probation; `armed`: the other slot is on trial at the next start, or is being prepared for it.
pub fn act(kept: &Kept, running: &K3sInfo, boot_id: &str, may_go_back: bool, armed: bool) -> Act {
    if kept.boot_id == boot_id {
        // Made in this boot. Once no trial comes of it, k3s runs on and the copy only ages: put
        // back at a later start it would undo what was written since.
        if armed { Act::Leave } else { Act::Drop }
    } else if kept.k3s.sha256 == running.sha256 {
        Act::Restore
    } else if may_go_back {
        Act::Leave
    } else {
        Act::Drop
    }
}

/// Whether an agent ended between arming a trial and the reboot into it. `running`: k3s runs;
/// `preparing`: a slot is being written; `ahead`: the other slot is on trial at the next start;
/// `copied`: the datastore was copied in this boot.
pub fn cut_off(running: bool, preparing: bool, ahead: bool, copied: bool) -> bool {
    !running && !preparing && ahead && copied
}

/// Whether a trial of `next` needs a copy.
pub fn needed(running: Option<&K3sInfo>, next: Option<&K3sInfo>) -> bool {
    running.is_some() && running.map(|k| &k.sha256) != next.map(|k| &k.sha256)
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    flush(to)
}

fn absent_is_fine(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    absent_is_fine(fs::remove_dir_all(path))
}

/// Returns when the disk has the names in `folder`.
fn flush(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Returns when the disk has the name of `path` itself.
fn flush_name(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), flush)
}

/// Copies `datastore` into `kept`; whole or not at all. k3s must not run.
///
/// # Errors
/// As the file system says.
pub fn keep(datastore: &Path, kept: &Path, note: &Kept) -> anyhow::Result<()> {
    if !datastore.is_dir() {
        return Ok(());
    }
    let fresh = kept.with_extension("new");
    remove(&fresh)?;
    let done = put(datastore, kept, &fresh, note);
    if done.is_err() {
        // Half a copy must not fill /var.
        let _ = remove(&fresh);
    }
    done
}

fn put(datastore: &Path, kept: &Path, fresh: &Path, note: &Kept) -> anyhow::Result<()> {
    copy_tree(datastore, &fresh.join("db"))?;
    fs::write(fresh.join(NOTE), serde_json::to_vec(note)?)?;
    fs::File::open(fresh.join(NOTE))?.sync_all()?;
    flush(fresh)?;
    forget(kept)?;
    fs::rename(fresh, kept).context("the copy of the datastore cannot be kept")?;
    Ok(flush_name(kept)?)
}

/// What the copy is of, if there is one.
pub fn read(kept: &Path) -> Option<Kept> {
    serde_json::from_slice(&fs::read(kept.join(NOTE)).ok()?).ok()
}

/// Whether there is a copy that was made in boot `boot_id`.
pub fn made_in(kept: &Path, boot_id: &str) -> bool {
    read(kept).is_some_and(|note| note.boot_id == boot_id)
}

/// Puts the copy in the datastore's place; what was there stays beside it. May be repeated.
///
/// # Errors
/// As the file system says.
pub fn restore(datastore: &Path, kept: &Path) -> anyhow::Result<()> {
    let (fresh, aside) = (
        datastore.with_extension("back"),
        datastore.with_extension("left"),
    );
    remove(&fresh)?;
    copy_tree(&kept.join("db"), &fresh)?;
    if datastore.exists() {
        remove(&aside)?;
        fs::rename(datastore, &aside)?;
    }
    fs::rename(&fresh, datastore)?;
    // Before the copy goes: a power cut must leave the one or the other.
    flush_name(datastore)?;
    forget(kept)
}

/// Removes the copy; after a power cut it is there whole or does not count.
///
/// # Errors
/// As the file system says.
pub fn forget(kept: &Path) -> anyhow::Result<()> {
    if kept.is_dir() {
        absent_is_fine(fs::remove_file(kept.join(NOTE)))?;
        flush(kept)?;
    }
    Ok(remove(kept)?)
}

/// Removes a copy that was made in boot `boot_id`; one of before belongs to the trial that runs.
///
/// # Errors
/// As the file system says.
pub fn forget_made_in(kept: &Path, boot_id: &str) -> anyhow::Result<()> {
    if made_in(kept, boot_id) {
        forget(kept)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn k3s(sha: &str) -> K3sInfo {
        K3sInfo {
            version: "v1.36.0".into(),
            sha256: sha.into(),
            stand_in: false,
        }
    }

    #[test]
    fn put_back_only_after_going_back() {
        let kept = Kept {
            k3s: k3s("old"),
            boot_id: "b1".into(),
        };
        assert_eq!(act(&kept, &k3s("old"), "b1", false, true), Act::Leave);
        assert_eq!(act(&kept, &k3s("new"), "b2", true, false), Act::Leave);
        assert_eq!(act(&kept, &k3s("old"), "b3", false, false), Act::Restore);
        assert_eq!(act(&kept, &k3s("new"), "b3", false, false), Act::Drop);
        // The trial was refused, and k3s goes on writing.
        assert_eq!(act(&kept, &k3s("old"), "b1", false, false), Act::Drop);
        // The agent ended before the reboot into the trial.
        assert!(cut_off(false, false, true, true));
        assert!(!cut_off(true, false, true, true) && !cut_off(false, true, true, true));
        assert!(!cut_off(false, false, false, true) && !cut_off(false, false, true, false));
        assert!(needed(Some(&k3s("a")), Some(&k3s("b"))) && needed(Some(&k3s("a")), None));
        assert!(!needed(Some(&k3s("a")), Some(&k3s("a"))) && !needed(None, Some(&k3s("a"))));
    }

    #[test]
    fn the_copy_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (db, kept) = (dir.path().join("db"), dir.path().join("kept"));
        fs::create_dir_all(db.join("etcd")).unwrap();
        fs::write(db.join("etcd/wal"), "old").unwrap();
        let note = Kept {
            k3s: k3s("old"),
            boot_id: "b1".into(),
        };
        keep(&db, &kept, &note).unwrap();
        forget_made_in(&kept, "b0").unwrap();
        assert_eq!(read(&kept), Some(note));
        assert!(made_in(&kept, "b1") && !made_in(&kept, "b0"));
        fs::write(db.join("etcd/wal"), "new").unwrap();
        fs::write(db.join("more"), "new").unwrap();
        restore(&db, &kept).unwrap();
        assert_eq!(fs::read_to_string(db.join("etcd/wal")).unwrap(), "old");
        assert!(!db.join("more").exists() && read(&kept).is_none() && !kept.exists());
        // A removal that was cut off.
        fs::create_dir_all(kept.join("db")).unwrap();
        assert!(read(&kept).is_none());
        forget(&kept).unwrap();
        assert!(!kept.exists());
        forget(&kept).unwrap();
        keep(
            &db,
            &kept,
            &Kept {
                k3s: k3s("old"),
                boot_id: "b1".into(),
            },
        )
        .unwrap();
        forget_made_in(&kept, "b1").unwrap();
        assert!(!kept.exists());
    }
}
