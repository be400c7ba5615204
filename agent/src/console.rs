//! Lines for whoever stands before the machine: on its console, each beginning `holdfast:`.
//! They go to the log as well.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

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
        // Opened anew each time: a console may come and go.
        if let Ok(mut console) = std::fs::OpenOptions::new()
            .append(true)
            .open("/dev/console")
        {
            let _ = console.write_all(line.as_bytes());
        }
    }
}

/// Prints one line; control characters of foreign text cannot forge another.
pub fn say(text: &str) {
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
    fn foreign_text_stays_on_one_line() {
        assert_eq!(
            super::line("bad\r\nholdfast: joined"),
            "holdfast: bad  holdfast: joined\r\n"
        );
    }
}
