//! Reading the ring: the last lines, then what comes, for one client in one thread.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_core::control::LogLine;
use holdfast_core::ipc::LogRequest;

use super::store::{path, segments};

/// How many clients are served at once.
const CLIENTS_MAX: usize = 8;
/// A client that takes nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a follower looks for more.
const LOOK: Duration = Duration::from_millis(200);
/// The longest request, in bytes.
const REQUEST_MAX: u64 = 4096;

/// Counts the clients, so that the writer knows that someone reads.
#[derive(Debug, Clone, Default)]
pub struct Readers(Arc<AtomicUsize>);

impl Readers {
    /// Whether anyone reads.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Serves a client in a thread of its own; one too many is turned away.
    pub fn serve(&self, stream: UnixStream, directory: &Path) {
        if self.0.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (count, directory) = (self.clone(), directory.to_owned());
        let served = std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || {
                // A client that went away is the usual end.
                let _ = serve(&stream, &directory);
                count.0.fetch_sub(1, Ordering::Relaxed);
            });
        if served.is_err() {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: &UnixStream, directory: &Path) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    BufReader::new(stream.take(REQUEST_MAX))
        .read_line(&mut text)
        .context("read the request")?;
    let request: LogRequest = serde_json::from_str(&text).context("understand the request")?;
    // The writer writes what it collected now that it sees a reader.
    std::thread::sleep(LOOK);
    let mut place = start(directory, &request);
    stream.set_nonblocking(true)?;
    let mut one = [0; 1];
    loop {
        stream.set_nonblocking(false)?;
        while place.send(directory, &request, stream)? {}
        if !request.follow {
            return Ok(());
        }
        std::thread::sleep(LOOK);
        stream.set_nonblocking(true)?;
        match (&mut &*stream).read(&mut one) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(error.into());
            }
            _ => {}
        }
    }
}

/// Where reading goes on.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    number: u64,
    offset: u64,
}

fn matches(line: &[u8], request: &LogRequest) -> bool {
    match &request.unit {
        None => true,
        Some(unit) => serde_json::from_slice::<LogLine>(line).is_ok_and(|l| &l.unit == unit),
    }
}

/// The place from which as many lines are left as were asked for.
fn start(directory: &Path, request: &LogRequest) -> Place {
    let numbers = segments(directory);
    let mut place = Place {
        number: numbers.last().copied().unwrap_or(0),
        offset: 0,
    };
    let mut missing = request.lines as usize;
    for number in numbers.into_iter().rev() {
        let Ok(bytes) = std::fs::read(path(directory, number)) else {
            break;
        };
        let mut offset = 0;
        let mut starts = Vec::new();
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            if matches(line, request) {
                starts.push(offset);
            }
            offset += line.len() as u64;
        }
        place = Place {
            number,
            offset: starts.first().copied().unwrap_or(offset),
        };
        if starts.len() >= missing {
            place.offset = starts
                .get(starts.len() - missing)
                .copied()
                .unwrap_or(offset);
            return place;
        }
        missing -= starts.len();
    }
    place
}

impl Place {
    /// Sends whole lines of this file; `true`: there is a next file, go on there.
    fn send(&mut self, directory: &Path, request: &LogRequest, mut to: impl Write) -> Result<bool> {
        let file_path: PathBuf = path(directory, self.number);
        // Whether there is a next one is asked first: then this one is complete.
        let next = segments(directory).into_iter().find(|n| *n > self.number);
        if let Ok(mut file) = File::open(&file_path) {
            file.seek(SeekFrom::Start(self.offset))?;
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
                if matches(&line, request) {
                    to.write_all(&line)?;
                }
                self.offset += line.len() as u64;
                line.clear();
            }
        }
        if let Some(number) = next {
            *self = Self { number, offset: 0 };
        }
        Ok(next.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::store::Store;

    fn fill(directory: &Path) -> Store {
        let mut store = Store::open(directory, 8).unwrap();
        for i in 0..3000 {
            let unit = if i % 3 == 0 { "k3s" } else { "agent" };
            let message = format!("{i} {}", "x".repeat(1000));
            store
                .push(&LogLine {
                    at: i,
                    unit: unit.into(),
                    priority: 6,
                    message,
                })
                .unwrap();
        }
        store.flush().unwrap();
        store
    }

    fn read(directory: &Path, request: &LogRequest) -> Vec<u64> {
        let mut out = Vec::new();
        let mut place = start(directory, request);
        while place.send(directory, request, &mut out).unwrap() {}
        out.split(|&b| b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice::<LogLine>(l).unwrap().at)
            .collect()
    }

    #[test]
    fn the_last_lines_cross_files() {
        let dir = tempfile::tempdir().unwrap();
        let _store = fill(dir.path());
        assert!(segments(dir.path()).len() > 2);
        let request = LogRequest {
            lines: 1500,
            follow: false,
            unit: None,
        };
        assert_eq!(read(dir.path(), &request), (1500..3000).collect::<Vec<_>>());
        let one_unit = LogRequest {
            lines: 2,
            follow: false,
            unit: Some("k3s".into()),
        };
        assert_eq!(read(dir.path(), &one_unit), [2994, 2997]);
        let all = LogRequest {
            lines: u32::MAX,
            follow: false,
            unit: Some("k3s".into()),
        };
        assert_eq!(read(dir.path(), &all).len(), 1000);
        let none = LogRequest {
            lines: 0,
            follow: false,
            unit: None,
        };
        assert!(read(dir.path(), &none).is_empty());
    }

    #[test]
    fn a_follower_gets_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = fill(dir.path());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let readers = Readers::default();
        readers.serve(theirs, dir.path());
        assert!(readers.any());
        writeln!(&ours, r#"{{"lines":1,"follow":true,"unit":null}}"#).unwrap();
        let mut lines = BufReader::new(&ours).lines();
        assert!(lines.next().unwrap().unwrap().contains("2999 x"));
        store
            .push(&LogLine {
                at: 1,
                unit: "agent".into(),
                priority: 6,
                message: "new".into(),
            })
            .unwrap();
        store.flush().unwrap();
        assert!(lines.next().unwrap().unwrap().contains("new"));
    }
}
