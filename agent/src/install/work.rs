//! The disk that is installed on: every write is flushed, read back past the page cache and
//! compared before the next one begins.

use super::plan::Step;
use super::root::{self, Tree};
use super::source::RootSpec;
use crate::console::say;
use crate::disk::{open_read, read_at};
use anyhow::{Context as _, bail, ensure};
use holdfast_core::gpt;
use holdfast_core::layout::Role;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes moved at a time.
const CHUNK: usize = 1 << 20;

/// Says every tenth on the console.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    done: u64,
    told: u64,
}

impl Progress {
    /// Of so many bytes.
    pub fn new(total: u64) -> Self {
        Self {
            total: total.max(1),
            done: 0,
            told: 0,
        }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if let Some(percent) = self.news() {
            say(&format!("install: {percent} %"));
        }
    }

    fn news(&mut self) -> Option<u64> {
        let tenth = (self.done.min(self.total) * 10) / self.total;
        (tenth > self.told).then(|| {
            self.told = tenth;
            tenth * 10
        })
    }
}

/// The disk, and the partitions of the stick that it is made from.
#[derive(Debug)]
pub struct Work {
    disk: File,
    stick: BTreeMap<String, PathBuf>,
    root: RootSpec,
    progress: Progress,
}

impl Work {
    /// Opens the disk for itself alone.
    ///
    /// # Errors
    /// When it is in use, or gone.
    pub fn open(
        node: &Path,
        stick: BTreeMap<String, PathBuf>,
        root: RootSpec,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL)
            .open(node)
            .with_context(|| node.display().to_string())?;
        Ok(Self {
            disk,
            stick,
            root,
            progress,
        })
    }

    /// The disk.
    pub const fn disk(&self) -> &File {
        &self.disk
    }

    /// Carries out a step that writes to the disk; the others are not its own and do nothing.
    ///
    /// # Errors
    /// The disk refuses or does not keep what is written, or the stick's content is not what was
    /// signed.
    pub fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Bytes { what, at, bytes } => self.bytes(*at, bytes).context(*what),
            Step::Zeros { what, at, len } => self.zeros(*at, *len).context(*what),
            Step::Copy {
                what,
                from,
                from_at,
                len,
                at,
                patches,
                digest,
            } => self
                .copy((*from, *from_at), *len, *at, patches, *digest)
                .context(*what),
            Step::Root { from, at } => self.root(*from, *at).context("root"),
            Step::Table(gpt::Step::Write { lba, bytes }) => self
                .disk
                .write_all_at(bytes, lba * super::content::BLOCK as u64)
                .context("table"),
            Step::Table(gpt::Step::Flush) => self.disk.sync_all().context("table"),
            _ => Ok(()),
        }
    }

    fn stick(&self, role: Role) -> anyhow::Result<File> {
        let path = self.stick.get(role.name());
        let path = path.with_context(|| format!("the stick has no partition {}", role.name()))?;
        Ok(open_read(path)?)
    }

    fn bytes(&mut self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let mut done = 0;
        for chunk in bytes.chunks(CHUNK) {
            self.write(at + done, chunk)?;
            done += chunk.len() as u64;
        }
        self.read_back(at, done, |offset, found| {
            bytes.get(offset..offset + found.len()) == Some(found)
        })
    }

    fn zeros(&mut self, at: u64, len: u64) -> anyhow::Result<()> {
        let zeros = vec![0; CHUNK];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(CHUNK as u64);
            self.write(at + done, &zeros[..n as usize])?;
            done += n;
        }
        self.read_back(at, len, |_, found| found.iter().all(|b| *b == 0))
    }

    fn copy(
        &mut self,
        (from, from_at): (Role, u64),
        len: u64,
        at: u64,
        patches: &[(u64, Vec<u8>)],
        digest: Option<[u8; 32]>,
    ) -> anyhow::Result<()> {
        let file = self.stick(from)?;
        let (mut read, mut written) = (Sha256::new(), Sha256::new());
        let mut done = 0;
        while done < len {
            let mut chunk = whole(&file, from_at + done, len - done)?;
            if digest.is_some() {
                read.update(&chunk);
            }
            patch(&mut chunk, done, patches);
            written.update(&chunk);
            self.write(at + done, &chunk)?;
            done += chunk.len() as u64;
        }
        if let Some(digest) = digest {
            ensure!(
                read.finalize() == digest.into(),
                "the stick's copy is damaged: its digest is not the one that is signed"
            );
        }
        let mut hash = Sha256::new();
        self.read_back(at, len, |_, found| {
            hash.update(found);
            true
        })?;
        ensure!(hash.finalize() == written.finalize(), NOT_KEPT);
        Ok(())
    }

    fn root(&mut self, from: Role, at: u64) -> anyhow::Result<()> {
        let (file, spec) = (self.stick(from)?, self.root.clone());
        let mut tree = Tree::new(&spec.salt);
        let mut done = 0;
        while done < spec.len {
            let chunk = whole(&file, done, spec.len - done)?;
            tree.feed(&chunk);
            self.write(at + done, &chunk)?;
            done += chunk.len() as u64;
        }
        let (tree, hash) = tree.finish();
        ensure!(
            hash == spec.hash,
            "the stick's root is damaged: its root hash is not the one that is signed"
        );
        self.bytes(at + spec.len, &tree)?;
        debug_assert_eq!(tree.len() as u64, root::tree_len(spec.len));
        let mut again = Tree::new(&spec.salt);
        self.read_back(at, spec.len, |_, found| {
            again.feed(found);
            true
        })?;
        ensure!(again.finish().1 == spec.hash, NOT_KEPT);
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.disk.write_all_at(bytes, at)?;
        self.progress.add(bytes.len());
        Ok(())
    }

    fn read_back(
        &mut self,
        at: u64,
        len: u64,
        mut same: impl FnMut(usize, &[u8]) -> bool,
    ) -> anyhow::Result<()> {
        self.disk.sync_data()?;
        // A hint: where the kernel does not follow it, the cache is compared instead of the disk.
        let _ = nix::fcntl::posix_fadvise(
            &self.disk,
            i64::try_from(at)?,
            i64::try_from(len)?,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        );
        let mut done = 0;
        while done < len {
            let found = whole(&self.disk, at + done, len - done)?;
            if !same(usize::try_from(done)?, &found) {
                bail!(NOT_KEPT);
            }
            self.progress.add(found.len());
            done += found.len() as u64;
        }
        Ok(())
    }
}

const NOT_KEPT: &str = "the disk does not keep what is written to it";

/// The next bytes, at most a chunk.
fn whole(file: &File, at: u64, left: u64) -> anyhow::Result<Vec<u8>> {
    let n = left.min(CHUNK as u64) as usize;
    let bytes = read_at(file, at, n)?;
    ensure!(bytes.len() == n, "ends at byte {}", at + bytes.len() as u64);
    Ok(bytes)
}

/// Puts what of `patches` falls into `chunk`, which begins at `from`.
fn patch(chunk: &mut [u8], from: u64, patches: &[(u64, Vec<u8>)]) {
    for (at, bytes) in patches {
        for (i, byte) in bytes.iter().enumerate() {
            let place = (at + i as u64).checked_sub(from);
            let place = place.and_then(|p| usize::try_from(p).ok());
            if let Some(to) = place.and_then(|p| chunk.get_mut(p)) {
                *to = *byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stick(bytes: &[u8]) -> (tempfile::NamedTempFile, BTreeMap<String, PathBuf>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(bytes, 0).unwrap();
        let parts = BTreeMap::from([("esp".to_owned(), file.path().to_owned())]);
        (file, parts)
    }

    fn content() -> Vec<u8> {
        (0..3 * CHUNK as u32 / 2).map(|i| (i % 253) as u8).collect()
    }

    fn work(stick: BTreeMap<String, PathBuf>, hash: [u8; 32]) -> (tempfile::NamedTempFile, Work) {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(16 << 20).unwrap();
        let root = RootSpec {
            hash,
            salt: vec![],
            len: content().len() as u64,
        };
        let work = Work::open(disk.path(), stick, root, Progress::new(1)).unwrap();
        (disk, work)
    }

    fn copy(digest: Option<[u8; 32]>) -> Step {
        Step::Copy {
            what: "loader",
            from: Role::Esp,
            from_at: 5,
            len: content().len() as u64 - 5,
            at: 4096,
            patches: vec![(CHUNK as u64 - 1, vec![0xee, 0xdd])],
            digest,
        }
    }

    #[test]
    fn copies_are_checked_and_patched() {
        let (_stick, parts) = stick(&content());
        let (disk, mut work) = work(parts, [0; 32]);
        work.step(&copy(Some(Sha256::digest(&content()[5..]).into())))
            .unwrap();
        let found = std::fs::read(disk.path()).unwrap();
        let mut wanted = content()[5..].to_vec();
        wanted[CHUNK - 1..CHUNK + 1].copy_from_slice(&[0xee, 0xdd]);
        assert_eq!(found[4096..4096 + wanted.len()], wanted);
        let error = work.step(&copy(Some([1; 32]))).unwrap_err();
        assert!(
            format!("{error:#}").contains("loader: the stick's copy is damaged"),
            "{error:#}"
        );
    }

    #[test]
    fn a_root_is_taken_only_with_its_signed_hash() {
        let mut tree = Tree::new(&[]);
        tree.feed(&content());
        let (tree, hash) = tree.finish();
        let (_stick, parts) = stick(&content());
        let step = Step::Root {
            from: Role::Esp,
            at: 0,
        };
        let (disk, mut good) = work(parts.clone(), hash);
        good.step(&step).unwrap();
        let all = [content(), tree].concat();
        assert_eq!(std::fs::read(disk.path()).unwrap()[..all.len()], all);
        let (_disk, mut bad) = work(parts, [1; 32]);
        assert!(format!("{:#}", bad.step(&step).unwrap_err()).contains("root is damaged"));
    }

    #[test]
    fn a_tenth_is_told_once() {
        let mut progress = Progress::new(100);
        let mut told = vec![];
        for _ in 0..60 {
            progress.done += 2;
            told.extend(progress.news());
        }
        assert_eq!(told, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    }
}
