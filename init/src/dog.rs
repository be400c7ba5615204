//! The hardware watchdogs: all that their drivers bring, armed as they come, fed together. One that
//! is there and not opened would fire (the kernel's `watchdog.open_timeout`), or be the only one
//! that really resets this machine.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::kmsg;
use crate::sys::watchdog::Watchdog;

/// Seconds that the hardware waits for food.
const WATCHDOG_SECONDS: i32 = 60;
/// How often they are fed: the shortest timeout of the boards' hardware is 10 s.
const FEEDING: Duration = Duration::from_secs(3);
/// One directory for each watchdog (Linux `Documentation/ABI/testing/sysfs-class-watchdog`).
const CLASS: &str = "/sys/class/watchdog";

/// What `softdog` calls itself (Linux `drivers/watchdog/softdog.c`).
const SOFTDOG: &str = "Software Watchdog";

/// What the slot record has to be told of the watchdog that the loader armed: `Some(true)`, that
/// nobody feeds it, which ends every start; `Some(false)`, that this is over; nothing otherwise.
/// `armed`: in this start; `hardware`: a driver brought one that is fed; `noted`: what the record says.
pub const fn news(armed: bool, hardware: bool, noted: bool) -> Option<bool> {
    match (armed, hardware, noted) {
        (true, false, false) => Some(true),
        (_, true, true) => Some(false),
        _ => None,
    }
}

/// The watchdogs with their feeding time.
#[derive(Debug)]
pub struct Dog {
    open: BTreeMap<String, (Watchdog, String)>,
    fed: Instant,
    trouble: Option<String>,
    wanted: bool,
}

impl Dog {
    /// None yet; none ever, unless they are `wanted`.
    pub fn new(wanted: bool) -> Self {
        Self {
            open: BTreeMap::new(),
            fed: Instant::now(),
            trouble: None,
            wanted,
        }
    }

    /// Arms what has come since the last look.
    pub fn look(&mut self) {
        if !self.wanted {
            return;
        }
        for name in names(Path::new(CLASS)) {
            if self.open.contains_key(&name) {
                continue;
            }
            match Watchdog::open(&Path::new("/dev").join(&name), WATCHDOG_SECONDS) {
                Ok((watchdog, seconds)) => {
                    let identity = identity(Path::new(CLASS), &name);
                    kmsg::notice(format_args!("watchdog armed, {seconds} s ({identity})"));
                    self.open.insert(name, (watchdog, identity));
                }
                Err(error) => self.trouble = Some(format!("{name}: {error}")),
            }
        }
    }

    /// Why no watchdog is armed; `None`: one is.
    pub fn missing(&self) -> Option<String> {
        self.open.is_empty().then(|| match &self.trouble {
            _ if !self.wanted => "no hardware watchdog: this image leaves it alone".to_owned(),
            Some(trouble) => format!("no hardware watchdog: {trouble}"),
            None => "no hardware watchdog: no driver found one".to_owned(),
        })
    }

    /// Whether one of them is hardware.
    pub fn hardware(&self) -> bool {
        self.open.values().any(|(_, identity)| identity != SOFTDOG)
    }

    /// Feeds them, at most every few seconds.
    pub fn feed(&mut self) {
        if self.fed.elapsed() >= FEEDING {
            self.open.values().for_each(|(dog, _)| dog.feed());
            self.fed = Instant::now();
        }
    }
}

/// Whether any driver brought a watchdog.
pub fn any() -> bool {
    !names(Path::new(CLASS)).is_empty()
}

fn names(class: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(class).into_iter().flatten().flatten();
    entries.filter_map(|e| name(&e.file_name())).collect()
}

fn name(entry: &OsStr) -> Option<String> {
    let text = entry.to_str()?;
    let number = text.strip_prefix("watchdog")?;
    number.parse::<u8>().is_ok().then(|| text.to_owned())
}

fn identity(class: &Path, name: &str) -> String {
    std::fs::read_to_string(class.join(name).join("identity"))
        .map_or_else(|_| name.to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_nobody_feeds_is_news_once() {
        assert_eq!(news(true, false, false), Some(true));
        // The loader heeds it: nothing is armed any more.
        assert_eq!(news(false, false, true), None);
        // One that does not heed it must not make the start end by that again.
        assert_eq!(news(true, false, true), None);
        // Another system has the driver.
        assert_eq!(news(false, true, true), Some(false));
        assert_eq!(news(true, true, false), None);
        assert_eq!(news(false, false, false), None);
    }

    #[test]
    fn every_watchdog_of_the_class_is_found() {
        let class = tempfile::tempdir().unwrap();
        for entry in ["watchdog0", "watchdog1", "watchdogs", "other"] {
            std::fs::create_dir(class.path().join(entry)).unwrap();
        }
        std::fs::write(class.path().join("watchdog1/identity"), "iTCO_wdt\n").unwrap();
        let mut found = names(class.path());
        found.sort();
        assert_eq!(found, ["watchdog0", "watchdog1"]);
        assert_eq!(identity(class.path(), "watchdog1"), "iTCO_wdt");
        assert_eq!(identity(class.path(), "watchdog0"), "watchdog0");
        assert!(names(Path::new("/nonexistent")).is_empty());
    }
}
