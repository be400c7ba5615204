use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the log is looked at while waiting.
const GLANCE: Duration = Duration::from_millis(10);

/// A machine's serial console, as its log file. Reading goes forward: each marker found moves the
/// place where the next one is looked for, so that two boots in one log are told apart.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    /// Offset of the first byte not yet taken into `pending`.
    read: u64,
    /// Bytes read and not yet passed by a marker.
    pending: Vec<u8>,
}

/// The outcome of waiting for one of several markers, before it is put into words.
pub(crate) enum Waited {
    /// The marker of this index was found.
    Found(usize),
    /// The time is over.
    TimedOut,
    /// `alive` said no, and the marker is not in what was left.
    Dead,
}

impl Console {
    pub(crate) fn new(path: PathBuf) -> Self {
        let read = std::fs::metadata(&path).map_or(0, |m| m.len());
        Self {
            path,
            read,
            pending: Vec::new(),
        }
    }

    /// The log file: everything that this machine ever wrote.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// The last lines written, for error messages.
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// What came since the last marker, without moving on.
    pub fn unread(&mut self) -> String {
        self.take_in();
        String::from_utf8_lossy(&self.pending).into_owned()
    }

    /// Forgets what came so far: the next marker must be new.
    pub fn skip(&mut self) {
        self.take_in();
        self.pending.clear();
    }

    fn take_in(&mut self) {
        let Ok(mut file) = File::open(&self.path) else {
            return;
        };
        if file.seek(SeekFrom::Start(self.read)).is_ok()
            && let Ok(n) = file.read_to_end(&mut self.pending)
        {
            self.read += n as u64;
        }
    }

    /// Waits until one of `markers` appears; the earliest in the text wins, and reading goes on
    /// behind it.
    pub(crate) fn wait(
        &mut self,
        markers: &[&str],
        limit: Duration,
        mut alive: impl FnMut() -> bool,
    ) -> Waited {
        let deadline = Instant::now() + limit;
        loop {
            // Asked before reading, so that the last words of a machine that died are still seen.
            let living = alive();
            self.take_in();
            let first = markers
                .iter()
                .enumerate()
                .filter_map(|(i, marker)| find(&self.pending, marker.as_bytes()).map(|at| (at, i)))
                .min();
            if let Some((at, i)) = first {
                self.pending.drain(..at + markers[i].len());
                return Waited::Found(i);
            }
            if !living {
                return Waited::Dead;
            }
            if Instant::now() >= deadline {
                return Waited::TimedOut;
            }
            std::thread::sleep(GLANCE);
        }
    }
}

pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(hay, needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &str) -> (tempfile::TempDir, Console) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let console = Console::new(path.clone());
        std::fs::write(&path, text).unwrap();
        (dir, console)
    }

    #[test]
    fn markers_are_found_in_order_and_once() {
        let (_dir, mut console) = console("loader up\ninit up\nloader up\n");
        let zero = Duration::ZERO;
        assert!(matches!(
            console.wait(&["loader up"], zero, || true),
            Waited::Found(0)
        ));
        assert!(matches!(
            console.wait(&["nothing", "init up", "loader up"], zero, || true),
            Waited::Found(1)
        ));
        assert!(matches!(
            console.wait(&["loader up"], zero, || true),
            Waited::Found(0)
        ));
        assert!(matches!(
            console.wait(&["loader up"], zero, || true),
            Waited::TimedOut
        ));
    }

    #[test]
    fn last_words_of_a_dead_machine_count() {
        let (_dir, mut console) = console("power down");
        assert!(matches!(
            console.wait(&["power down"], Duration::from_secs(9), || false),
            Waited::Found(0)
        ));
        assert!(matches!(
            console.wait(&["more"], Duration::from_secs(9), || false),
            Waited::Dead
        ));
    }
}
