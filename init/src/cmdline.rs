//! The kernel command line's `holdfast.*` words. Bad words become notes, never errors: a node with a
//! slip in its command line still has to come up and say so.
//!
//! | word | from | meaning |
//! |---|---|---|
//! | `holdfast.boot=HEX` | loader | random id, also in the record of the disk that was booted |
//! | `holdfast.slot=a\|b\|rescue` | loader | what was started |
//! | `holdfast.try=N` | loader | present on a trial: tries left after this one |
//! | `holdfast.rescue=1` | loader | keep off roots and trials |
//! | `holdfast.armed=NAME` | loader | the hardware watchdog that it armed, and that now counts down |
//! | `holdfast.roothash=HEX` | builder | dm-verity root hash (SHA-256) |
//! | `holdfast.rootsalt=HEX` | builder | its salt |
//! | `holdfast.rootlen=BYTES` | builder | length of the root file system; the hash tree follows |
//! | `holdfast.rootfs=NAME` | builder | its type, as `mount` names it |
//! | `holdfast.trial=SECONDS` | builder | how long a trial may take, default 600 |
//! | `holdfast.probation=SECONDS` | builder | how long a committed system has to run to be one that lasts, default 3600 |
//! | `holdfast.watchdog=off` | builder | leave watchdogs alone: an emulator's may fire at once |

use holdfast_core::slots::SETTLED_SECONDS;
use holdfast_core::status::SlotName;

/// How long a trial may take if the image does not say, in seconds.
pub const DEFAULT_DEADLINE: u64 = 600;
/// A deadline below would end every trial before its first handshake; one above would hide a failure
/// for hours.
const DEADLINE_RANGE: std::ops::RangeInclusive<u64> = 20..=7200;
/// One below says nothing.
const PROBATION_RANGE: std::ops::RangeInclusive<u64> = 20..=86_400;

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmdline {
    /// The loader's random id of this boot.
    pub boot: Option<String>,
    /// What was started.
    pub slot: Option<SlotName>,
    /// Whether the rescue system was asked for.
    pub rescue: bool,
    /// The verity root, if the image has one.
    pub root: Option<RootSpec>,
    /// How long a trial may take, in seconds.
    pub deadline: u64,
    /// How long a committed system has to run until its probation ends, in seconds.
    pub probation: u64,
    /// Whether to use the hardware watchdog.
    pub watchdog: bool,
    /// Whether the loader armed one.
    pub armed: bool,
    /// Words that could not be used, and why.
    pub notes: Vec<String>,
}

/// Where and what the root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSpec {
    /// Lower-case hex, 64 digits.
    pub hash: String,
    /// Lower-case hex, or `-` for none (dm-verity's own spelling).
    pub salt: String,
    /// Bytes of file system; a multiple of 4096.
    pub len: u64,
    /// As `mount` names it.
    pub fs: String,
}

/// Block size of data and hash blocks of the verity device, in bytes.
pub const VERITY_BLOCK: u64 = 4096;

/// Reads `/proc/cmdline`'s text. The last of equal words counts: the loader appends.
pub fn parse(text: &str) -> Cmdline {
    let mut line = Cmdline {
        boot: None,
        slot: None,
        rescue: false,
        root: None,
        deadline: DEFAULT_DEADLINE,
        probation: SETTLED_SECONDS,
        watchdog: true,
        armed: false,
        notes: Vec::new(),
    };
    let (mut hash, mut salt, mut len, mut fs) = (None, None, None, None);
    for word in text.split_ascii_whitespace() {
        let Some((key, value)) = word
            .strip_prefix("holdfast.")
            .and_then(|w| w.split_once('='))
        else {
            continue;
        };
        let fine = match key {
            "boot" => hex(value).map(|v| line.boot = Some(v)),
            "slot" => slot(value).map(|v| line.slot = Some(v)),
            "rescue" => {
                line.rescue = value == "1";
                Some(())
            }
            // The record says whether this is a trial; the word is for people reading the log.
            "try" => value.parse::<u32>().ok().map(drop),
            "roothash" => hex(value).filter(|v| v.len() == 64).map(|v| hash = Some(v)),
            "rootsalt" if value.is_empty() || value == "-" => {
                salt = Some("-".to_owned());
                Some(())
            }
            "rootsalt" => hex(value).map(|v| salt = Some(v)),
            "rootlen" => root_len(value).map(|v| len = Some(v)),
            "rootfs" => fs_name(value).map(|v| fs = Some(v)),
            "watchdog" => (value == "off").then(|| line.watchdog = false),
            "armed" => (!value.is_empty()).then(|| line.armed = true),
            "trial" => value
                .parse()
                .ok()
                .filter(|v| DEADLINE_RANGE.contains(v))
                .map(|v| line.deadline = v),
            "probation" => value
                .parse()
                .ok()
                .filter(|v| PROBATION_RANGE.contains(v))
                .map(|v| line.probation = v),
            _ => None,
        };
        if fine.is_none() {
            line.notes
                .push(format!("command line: {word:?} not understood, ignored"));
        }
    }
    line.root = match (hash, len, fs) {
        (Some(hash), Some(len), Some(fs)) => Some(RootSpec {
            hash,
            salt: salt.unwrap_or_else(|| "-".to_owned()),
            len,
            fs,
        }),
        (None, None, None) => None,
        _ => {
            line.notes.push(
                "command line: roothash, rootlen and rootfs must come together; no root".into(),
            );
            None
        }
    };
    line
}

fn hex(value: &str) -> Option<String> {
    let fits = !value.is_empty() && value.len().is_multiple_of(2) && value.len() <= 512;
    (fits && value.bytes().all(|b| b.is_ascii_hexdigit())).then(|| value.to_ascii_lowercase())
}

fn slot(value: &str) -> Option<SlotName> {
    match value {
        "a" => Some(SlotName::A),
        "b" => Some(SlotName::B),
        "rescue" => Some(SlotName::Rescue),
        _ => None,
    }
}

fn root_len(value: &str) -> Option<u64> {
    value
        .parse()
        .ok()
        .filter(|&v: &u64| v > 0 && v.is_multiple_of(VERITY_BLOCK))
}

fn fs_name(value: &str) -> Option<String> {
    let fits = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    fits.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_loader_and_builder_write() {
        let hash = "ab".repeat(32);
        let line = parse(&format!(
            "console=ttyS0 holdfast.roothash={hash} holdfast.rootfs=erofs holdfast.rootlen=8192 \
             holdfast.rootsalt=00ff panic=10 holdfast.boot=0123abcd holdfast.slot=b holdfast.try=2\n"
        ));
        assert_eq!(line.notes, Vec::<String>::new());
        assert_eq!(line.boot.as_deref(), Some("0123abcd"));
        assert_eq!(line.slot, Some(SlotName::B));
        let root = RootSpec {
            hash,
            salt: "00ff".into(),
            len: 8192,
            fs: "erofs".into(),
        };
        assert_eq!(line.root, Some(root));
        assert_eq!(line.deadline, DEFAULT_DEADLINE);
    }

    #[test]
    fn the_loaders_words_come_last_and_count() {
        assert_eq!(
            parse("holdfast.boot=aa holdfast.boot=bb").boot.as_deref(),
            Some("bb")
        );
        assert!(parse("holdfast.rescue=1").rescue);
        assert!(parse("").watchdog && !parse("holdfast.watchdog=off").watchdog);
        assert!(parse("holdfast.armed=itco").armed && !parse("").armed);
    }

    #[test]
    fn bad_words_are_notes() {
        let line =
            parse("holdfast.rootlen=5 holdfast.trial=1 holdfast.colour=blue holdfast.roothash=zz");
        assert_eq!(line.notes.len(), 4, "{:?}", line.notes);
        assert_eq!((line.root, line.deadline), (None, DEFAULT_DEADLINE));
        let half = parse("holdfast.rootlen=4096");
        assert!(half.root.is_none() && half.notes.len() == 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(holdfast\\.[a-z]{0,9}=[ -~]{0,12} ?|[ -~]{0,20} ?){0,6}") {
            let line = parse(&text);
            prop_assert!(DEADLINE_RANGE.contains(&line.deadline));
            prop_assert!(PROBATION_RANGE.contains(&line.probation));
        }
    }
}
