//! The cache: downloads by their digest, stages by the digest of their inputs.
//!
//! Everything in it can be deleted at any time. A file appears under its name only when it is
//! whole, so a build that was cut leaves nothing half-made behind.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    digest::Digest,
    error::{Error, IoContext, Result},
};

/// Results nobody asked for in this time are removed.
const KEEP: Duration = Duration::from_secs(14 * 24 * 3600);
/// Of each stage, at most this many results are kept.
const KEEP_RESULTS: usize = 12;

/// A folder with two kinds of content: `objects/` and `stages/`.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache below `root`, made if it is not there.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        for dir in ["objects", "stages", "partial", "index"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).at("create", &dir)?;
        }
        Ok(Self { root })
    }

    /// `$XDG_CACHE_HOME/holdfast`, else `~/.cache/holdfast`.
    ///
    /// # Errors
    /// When neither variable is set, or as [`Self::open`].
    pub fn default_dir() -> Result<PathBuf> {
        let var = |name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        var("XDG_CACHE_HOME")
            .or_else(|| var("HOME").map(|home| home.join(".cache")))
            .map(|dir| dir.join("holdfast"))
            .ok_or_else(|| Error::build("cache", "neither XDG_CACHE_HOME nor HOME is set"))
    }

    /// Where a download with this digest is, or will be.
    #[must_use]
    pub fn object(&self, digest: &Digest) -> PathBuf {
        self.root.join("objects").join(digest.to_string())
    }

    /// Where an unfinished download goes on.
    #[must_use]
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.to_string())
    }

    /// A verified archive index, by name.
    #[must_use]
    pub fn index(&self, name: &str) -> PathBuf {
        self.root.join("index").join(name)
    }

    /// Puts a whole, verified download in its place.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn adopt(&self, partial: &Path, digest: &Digest) -> Result<PathBuf> {
        let object = self.object(digest);
        fs::rename(partial, &object).at("rename", partial)?;
        Ok(object)
    }

    /// The result of `stage` for the inputs `key`: from the cache (`true`), or made by `make`,
    /// which writes to the path it is given.
    ///
    /// # Errors
    /// Whatever `make` says, or when the file system refuses.
    pub fn stage(
        &self,
        stage: &str,
        key: &Digest,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<(PathBuf, bool)> {
        let dir = self.root.join("stages").join(stage);
        let path = dir.join(key.to_string());
        if path.exists() {
            touch(&path);
            return Ok((path, true));
        }
        fs::create_dir_all(&dir).at("create", &dir)?;
        let scratch = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&dir)
            .at("create", &dir)?;
        let made = scratch.path().join("result");
        make(&made)?;
        // A second build may have been faster: its bytes are the same.
        match fs::rename(&made, &path) {
            Err(e) if !path.exists() => Err(e).at("rename", &made)?,
            _ => {}
        }
        Ok((path, false))
    }

    /// Removes stage results that nobody asked for in two weeks, and all but the newest twelve
    /// of each stage named in `bulky`.
    pub fn prune(&self, bulky: &[&str]) {
        let Ok(stages) = fs::read_dir(self.root.join("stages")) else {
            return;
        };
        for stage in stages.flatten() {
            let Ok(results) = fs::read_dir(stage.path()) else {
                continue;
            };
            let mut results: Vec<(SystemTime, PathBuf)> = results
                .flatten()
                .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
                .collect();
            results.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
            let bulky = bulky.iter().any(|b| stage.file_name() == **b);
            for (rank, (used, path)) in results.iter().enumerate() {
                let old = used.elapsed().is_ok_and(|age| age > KEEP);
                if old || (bulky && rank >= KEEP_RESULTS) {
                    // A cache that cannot be tidied is still a cache.
                    let _ = if path.is_dir() {
                        fs::remove_dir_all(path)
                    } else {
                        fs::remove_file(path)
                    };
                }
            }
        }
    }
}

/// Marks a result as used now, for [`Cache::prune`]; a read-only cache still works.
fn touch(path: &Path) {
    let _: io::Result<()> =
        fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

/// Writes `bytes` to `path` in one step: readers see the old content or the new.
///
/// # Errors
/// When the file system refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).at("create a file in", dir)?;
    io::Write::write_all(&mut file, bytes).at("write", path)?;
    // tempfile makes files private; these are for everyone to read.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))
            .at("set the mode of", path)?;
    }
    file.persist(path).map_err(|e| e.error).at("write", path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_made_once_and_a_failed_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let key = Digest::of(b"inputs");
        assert!(
            cache
                .stage("s", &key, |_| Err(Error::build("s", "no")))
                .is_err()
        );
        let (path, cached) = cache
            .stage("s", &key, |p| fs::write(p, "x").at("write", p))
            .unwrap();
        assert!(!cached);
        assert_eq!(fs::read(&path).unwrap(), b"x");
        let (_, cached) = cache
            .stage("s", &key, |_| Err(Error::build("s", "twice")))
            .unwrap();
        assert!(cached);
    }
}
