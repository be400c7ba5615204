//! Lines for whoever stands before the machine: on its console, each beginning `holdfast:`.
//! They go to the log as well.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The kernel's consoles (Linux `Documentation/ABI/testing/sysfs-tty`).
const ACTIVE: &str = "/sys/class/tty/console/active";
/// Lines that wait for a console that is slow or held up.
const QUEUE: usize = 64;

fn queue() -> &'static Option<SyncSender<String>> {
    static QUEUED: OnceLock<Option<SyncSender<String>>> = OnceLock::new();
    QUEUED.get_or_init(|| {
        let (send, receive) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("console".into())
            .spawn(move || print(&receive));
        thread.is_ok().then_some(send)
    })
}

/// A thread of its own: flow control on a serial line must not stop the agent.
fn print(lines: &Receiver<String>) {
    for line in lines {
        // Looked for and opened anew each time: a console may come and go.
        let active = std::fs::read_to_string(ACTIVE).unwrap_or_default();
        for name in names(&active) {
            let path = Path::new("/dev").join(name);
            if let Ok(mut console) = open(&path) {
                let _ = console.write_all(line.as_bytes());
            }
        }
    }
}

/// A terminal that is opened must not become this process's own, whose end would be its end.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NOCTTY)
        .open(path)
}

/// The devices of the kernel's consoles. `/dev/console` is only the last one of its command line:
/// on a machine with a screen and a serial line the other would show nothing.
fn names(active: &str) -> Vec<&str> {
    let sound = |n: &&str| n.chars().all(|c| c.is_ascii_alphanumeric());
    let names: Vec<&str> = active.split_ascii_whitespace().filter(sound).collect();
    if names.is_empty() {
        vec!["console"]
    } else {
        names
    }
}

/// Where lines go that are for people.
static TO_STDERR: AtomicBool = AtomicBool::new(false);

/// On a machine that is not Holdfast's, its consoles are others': lines go to standard error.
pub fn to_stderr() {
    TO_STDERR.store(true, Ordering::Relaxed);
}

/// Prints one line; control characters of foreign text cannot forge another.
pub fn say(text: &str) {
    if TO_STDERR.load(Ordering::Relaxed) {
        eprintln!("{}", line(text).trim_end());
        return;
    }
    tracing::info!("{text}");
    if let Some(queue) = queue() {
        let _ = queue.try_send(line(text));
    }
}

fn line(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("holdfast: {clean}\r\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_console_of_the_kernel_is_written_to() {
        assert_eq!(super::names("tty0 ttyS0\n"), ["tty0", "ttyS0"]);
        assert_eq!(super::names("../x"), ["console"]);
        assert_eq!(super::names(""), ["console"]);
    }

    #[test]
    fn foreign_text_stays_on_one_line() {
        assert_eq!(
            super::line("bad\r\nholdfast: joined"),
            "holdfast: bad  holdfast: joined\r\n"
        );
    }
}
