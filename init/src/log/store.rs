//! The log on disk: a ring of files of JSON lines, bounded in bytes. Lines are collected before they
//! are written, for flash's sake.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_core::control::LogLine;

/// A file is closed when it gets longer, in bytes.
pub const SEGMENT: u64 = 1 << 20;
/// Collected lines are written at this many bytes...
const COLLECT: usize = 64 * 1024;
/// ... or after this long.
const WAIT: Duration = Duration::from_secs(2);
/// Severities up to this (error) are written at once: they may be the last.
const URGENT: u8 = 3;

/// The ring's writing end.
pub struct Store {
    directory: PathBuf,
    segments: usize,
    number: u64,
    file: File,
    written: u64,
    collected: Vec<u8>,
    since: Option<Instant>,
}

/// The numbers of the ring's files, oldest first.
pub fn segments(directory: &Path) -> Vec<u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut numbers: Vec<u64> = names
        .filter_map(|n| n.strip_suffix(".jsonl")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The file of a number.
pub fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}.jsonl"))
}

impl Store {
    /// Goes on in `directory` with a new file, keeping at most `segments` of them.
    pub fn open(directory: &Path, segments_kept: usize) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let number = segments(directory).last().map_or(0, |last| last + 1);
        let file = create(directory, number)?;
        let store = Self {
            directory: directory.to_owned(),
            segments: segments_kept,
            number,
            file,
            written: 0,
            collected: Vec::with_capacity(COLLECT),
            since: None,
        };
        store.prune();
        Ok(store)
    }

    /// Keeps a line.
    pub fn push(&mut self, line: &LogLine) -> Result<()> {
        serde_json::to_writer(&mut self.collected, line).context("encode a line")?;
        self.collected.push(b'\n');
        self.since.get_or_insert_with(Instant::now);
        if line.priority <= URGENT || self.collected.len() >= COLLECT {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes what was collected if it is due, or if someone is reading.
    pub fn tick(&mut self, readers: bool) -> Result<()> {
        match self.since {
            Some(since) if readers || since.elapsed() >= WAIT => self.flush(),
            _ => Ok(()),
        }
    }

    /// Writes what was collected. What cannot be written is dropped: the next lines matter more.
    pub fn flush(&mut self) -> Result<()> {
        self.since = None;
        let result = self
            .file
            .write_all(&self.collected)
            .context("write the log");
        self.written += self.collected.len() as u64;
        self.collected.clear();
        result?;
        if self.written >= SEGMENT {
            self.file = create(&self.directory, self.number + 1)?;
            self.number += 1;
            self.written = 0;
            self.prune();
        }
        Ok(())
    }

    fn prune(&self) {
        let numbers = segments(&self.directory);
        for number in numbers
            .iter()
            .take(numbers.len().saturating_sub(self.segments))
        {
            let _ = fs::remove_file(path(&self.directory, *number));
        }
    }
}

fn create(directory: &Path, number: u64) -> Result<File> {
    let path = path(directory, number);
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .with_context(|| format!("make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn line(message: &str) -> LogLine {
        LogLine {
            at: 1,
            unit: "agent".into(),
            priority: 6,
            message: message.into(),
        }
    }

    #[test]
    fn the_ring_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), 3).unwrap();
        let long = "x".repeat(16 * 1024);
        for _ in 0..400 {
            store.push(&line(&long)).unwrap();
        }
        store.flush().unwrap();
        let bytes: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(segments(dir.path()).len() <= 3);
        assert!(bytes <= 3 * (SEGMENT + 2 * COLLECT as u64), "{bytes}");
    }

    #[test]
    fn a_restart_goes_on_behind_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let mut store = Store::open(dir.path(), 8).unwrap();
            store.push(&line("hello")).unwrap();
            store.flush().unwrap();
        }
        assert_eq!(segments(dir.path()), [0, 1, 2]);
    }
}
