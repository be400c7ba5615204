//! The agent's log: to journald's socket, which init's log child serves, through
//! `tracing-journald`; before that socket exists, and without it, to the kernel's log.
//!
//! `tracing-journald` sends on a blocking socket. It therefore runs on a thread of its own behind
//! a bounded queue: a log that does not drain costs lines, never the agent.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines that wait.
const QUEUE: usize = 1024;
/// Name in the log.
const NAME: &str = "agent";
/// boringtun logs each lost peer as an error; mozim tells of each retry. The agent says both in
/// its own words.
const FILTER: &str = "info,boringtun=off,mozim=warn,netlink_proto=warn";

struct Line {
    level: Level,
    text: String,
}

struct Forward {
    queue: SyncSender<Line>,
    lost: AtomicU64,
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else if !field.name().starts_with("log.") {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else if !field.name().starts_with("log.") {
            let _ = write!(self.fields, " {}={value}", field.name());
        }
    }
}

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut line = text.message + &text.fields;
        if lost > 0 {
            let _ = write!(line, " ({lost} lines lost before this one)");
        }
        match self.queue.try_send(Line {
            level: *event.metadata().level(),
            text: line,
        }) {
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(lost + 1, Ordering::Relaxed);
            }
            Ok(()) => {}
        }
    }
}

/// The kernel's log (kernel `Documentation/ABI/testing/dev-kmsg`); 3 is the facility `daemon`.
fn kmsg(line: &Line) {
    let severity = match line.level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let text: String = line
        .text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(900)
        .collect();
    if let Ok(mut log) = std::fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ =
            log.write_all(format!("<{}>holdfast-agent: {text}", (3 << 3) | severity).as_bytes());
    }
}

fn journal() -> Option<impl Subscriber + Send + Sync> {
    let layer = tracing_journald::layer().ok()?;
    Some(tracing_subscriber::registry().with(layer.with_syslog_identifier(NAME.into())))
}

fn run(lines: &Receiver<Line>) {
    let mut journal = None;
    for line in lines {
        if journal.is_none() {
            journal = journal_dispatch();
        }
        let Some(dispatch) = &journal else {
            kmsg(&line);
            continue;
        };
        let text = &line.text;
        tracing::dispatcher::with_default(dispatch, || match line.level {
            Level::ERROR => tracing::error!("{text}"),
            Level::WARN => tracing::warn!("{text}"),
            Level::INFO => tracing::info!("{text}"),
            Level::DEBUG => tracing::debug!("{text}"),
            Level::TRACE => tracing::trace!("{text}"),
        });
    }
}

fn journal_dispatch() -> Option<tracing::Dispatch> {
    journal().map(tracing::Dispatch::new)
}

/// Starts logging; `HOLDFAST_LOG` holds another filter, for people who debug.
pub fn start() {
    let (queue, lines) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new()
        .name("log".into())
        .spawn(move || run(&lines));
    if thread.is_err() {
        return;
    }
    let text = std::env::var("HOLDFAST_LOG").unwrap_or_else(|_| FILTER.into());
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(text);
    let forward = Forward {
        queue,
        lost: AtomicU64::new(0),
    };
    let _ = tracing_subscriber::registry()
        .with(forward.with_filter(filter))
        .try_init();
}
