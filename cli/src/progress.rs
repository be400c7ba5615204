//! Progress on standard error: bars on a terminal, plain lines elsewhere.

use crate::words::{plain, plain_lines};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::Duration;

/// Whether bars may be drawn.
pub fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}

fn bytes_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:<28} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:<28} {spinner} {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Steps that may overlap, each with its bar.
pub struct Steps {
    bars: Option<MultiProgress>,
    running: Mutex<HashMap<String, ProgressBar>>,
}

impl Steps {
    /// Bars where there is a terminal.
    pub fn new() -> Self {
        Self {
            bars: on_terminal().then(MultiProgress::new),
            running: Mutex::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, ProgressBar>) -> T) -> T {
        // A panic elsewhere leaves at worst a bar too many.
        act(&mut self
            .running
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// A step began.
    pub fn start(&self, step: &str, total: Option<u64>) {
        let Some(bars) = &self.bars else { return };
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(bytes_style()),
            None => ProgressBar::new_spinner().with_style(spinner_style()),
        };
        let bar = bars.add(bar.with_prefix(plain(step)));
        if total.is_none() {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        self.with(|running| running.insert(step.to_string(), bar));
    }

    /// A step got further by `bytes`.
    pub fn advance(&self, step: &str, bytes: u64) {
        self.with(|running| running.get(step).inspect(|bar| bar.inc(bytes)).is_some());
    }

    /// A step is at `done` of `total`.
    pub fn set(&self, step: &str, done: u64, total: u64) {
        if self.bars.is_some() && self.with(|running| !running.contains_key(step)) {
            self.start(step, Some(total));
        }
        self.with(|running| {
            if let Some(bar) = running.get(step) {
                bar.set_length(total);
                bar.set_position(done);
            }
        });
    }

    /// A spinner's words.
    pub fn message(&self, step: &str, message: &str) {
        self.with(|running| {
            if let Some(bar) = running.get(step) {
                bar.set_message(plain(message));
            }
        });
    }

    /// A step ended, with words for its line.
    pub fn done(&self, step: &str, words: &str) {
        if let Some(bar) = self.with(|running| running.remove(step)) {
            bar.finish_and_clear();
        }
        self.line(&format!("{step:<28} {words}"));
    }

    /// A line for people, above the bars.
    pub fn line(&self, text: &str) {
        let text = plain_lines(text.trim_end());
        match &self.bars {
            Some(bars) => bars.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Takes all bars away.
    pub fn clear(&self) {
        for bar in self.with(std::mem::take).into_values() {
            bar.finish_and_clear();
        }
    }
}

impl holdfast_image::Progress for Steps {
    fn event(&self, event: holdfast_image::Event<'_>) {
        use holdfast_image::Event;
        match event {
            Event::Start { step, total } => self.start(step, total),
            Event::Advance { step, bytes } => self.advance(step, bytes),
            Event::Done {
                step, cached: true, ..
            } => self.done(step, "from the cache"),
            Event::Done { step, took, .. } => {
                self.done(step, &format!("{:.1} s", took.as_secs_f64()))
            }
            Event::Note(text) => self.line(&format!("note: {text}")),
        }
    }
}
