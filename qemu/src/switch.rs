use std::collections::HashSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Result, io};

/// The largest frame that passes: a 64 KiB packet with its Ethernet header.
const FRAME: usize = 65_536 + 18;

/// An Ethernet hub between machines of one test: every frame that one machine sends reaches all the
/// others. It is a thread of the test's own process with one Unix datagram socket; machines join it
/// with [`crate::MachineSpec::link`], and it needs no privileges.
#[derive(Debug)]
pub struct Switch {
    dir: tempfile::TempDir,
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    cut: AtomicBool,
    frames: AtomicU64,
    ports: Mutex<HashSet<PathBuf>>,
}

impl Switch {
    /// A new hub.
    ///
    /// # Errors
    /// Where its socket cannot be made.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("hf-switch-")
            .tempdir()
            .map_err(io("make a directory in", std::env::temp_dir()))?;
        let path = dir.path().join("hub");
        let socket = UnixDatagram::bind(&path).map_err(io("bind", &path))?;
        // The thread looks at `stop` this often.
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .map_err(io("configure", &path))?;
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || forward(&socket, &shared)
        });
        Ok(Self {
            dir,
            path,
            shared,
            thread: Some(thread),
        })
    }

    /// Where machines send their frames.
    pub(crate) fn socket(&self) -> &Path {
        &self.path
    }

    /// Pulls every cable out (`true`), or plugs them in again (`false`).
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// How many frames were forwarded so far.
    pub fn frames(&self) -> u64 {
        self.shared.frames.load(Ordering::Relaxed)
    }

    /// How many machines have sent something.
    pub fn ports(&self) -> usize {
        self.shared
            .ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The directory of the hub's socket, gone with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn forward(socket: &UnixDatagram, shared: &Shared) {
    let mut frame = vec![0; FRAME];
    // A full machine must not stop the others: its frames are lost, as on a wire.
    let Ok(out) = UnixDatagram::unbound() else {
        return;
    };
    if out.set_nonblocking(true).is_err() {
        return;
    }
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((n, from)) = socket.recv_from(&mut frame) else {
            continue;
        };
        let Some(from) = from.as_pathname() else {
            continue;
        };
        let mut ports = shared.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if !ports.contains(from) {
            ports.insert(from.to_owned());
        }
        if shared.cut.load(Ordering::Relaxed) {
            continue;
        }
        shared.frames.fetch_add(1, Ordering::Relaxed);
        for port in ports.iter().filter(|port| port.as_path() != from) {
            let _ = out.send_to(&frame[..n], port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_reach_the_others_and_not_their_sender() {
        let switch = Switch::new().unwrap();
        let port = |name: &str| {
            let socket = UnixDatagram::bind(switch.dir().join(name)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            socket
        };
        let (a, b) = (port("a"), port("b"));
        a.send_to(b"hello", switch.socket()).unwrap();
        b.send_to(b"there", switch.socket()).unwrap();
        let mut buffer = [0; 64];
        let n = a.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"there");
        a.send_to(b"again", switch.socket()).unwrap();
        let n = b.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"again");
        assert_eq!(switch.ports(), 2);
        a.set_nonblocking(true).unwrap();
        assert!(a.recv(&mut buffer).is_err());
    }
}
