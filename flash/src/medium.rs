//! Telling one card from the next in the same reader.

use crate::sys;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// What is at a path now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// No such device, or no card in the reader.
    Absent,
    /// A medium. Two that were in the reader one after the other differ.
    Present(Identity),
}

/// What tells a medium from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The kernel's count of media (`diskseq` in sysfs, since Linux 5.15); a file's inode.
    sequence: u64,
    number: u64,
    bytes: u64,
}

/// Looks at what `path` leads to.
///
/// # Errors
/// When it is there and may not be opened.
pub fn look(path: &Path) -> io::Result<Presence> {
    let meta = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Presence::Absent),
        meta => meta?,
    };
    if !meta.file_type().is_block_device() {
        return Ok(Presence::Present(Identity {
            sequence: meta.ino(),
            number: meta.dev(),
            bytes: meta.len(),
        }));
    }
    // Opening makes the kernel look whether there is a card.
    let bytes = match File::open(path) {
        Ok(device) => sys::size(&device).unwrap_or(0),
        Err(e) if is_away(&e) => 0,
        Err(e) => return Err(e),
    };
    if bytes == 0 {
        return Ok(Presence::Absent);
    }
    let rdev = meta.rdev();
    let place = format!("{}:{}", libc::major(rdev), libc::minor(rdev));
    let file = Path::new("/sys/dev/block").join(place).join("diskseq");
    let sequence = fs::read_to_string(file).unwrap_or_default();
    Ok(Presence::Present(Identity {
        sequence: sequence.trim().parse().unwrap_or(0),
        number: rdev,
        bytes,
    }))
}

fn is_away(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOMEDIUM | libc::ENXIO | libc::ENODEV | libc::ENOENT)
    )
}

/// Waits for the card after the one that was there.
///
/// ```text
///   done --(absent seen, or another identity)--> empty --(present)--> next
/// ```
#[derive(Debug, Clone)]
pub struct Change {
    before: Option<Identity>,
    was_away: bool,
}

impl Change {
    /// After the card that is in the reader now.
    #[must_use]
    pub fn after(now: Presence) -> Self {
        match now {
            Presence::Absent => Self {
                before: None,
                was_away: true,
            },
            Presence::Present(identity) => Self {
                before: Some(identity),
                was_away: false,
            },
        }
    }

    /// Whether the card was taken out meanwhile.
    #[must_use]
    pub fn was_away(&self) -> bool {
        self.was_away
    }

    /// Takes what is seen now; true once another card is there.
    pub fn saw(&mut self, now: &Presence) -> bool {
        match now {
            Presence::Absent => {
                self.was_away = true;
                false
            }
            Presence::Present(identity) => {
                self.was_away || self.before.as_ref().is_some_and(|b| b != identity)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_card_is_not_the_next_one() {
        let card = |sequence| {
            Presence::Present(Identity {
                sequence,
                number: 1,
                bytes: 1,
            })
        };
        let mut change = Change::after(card(1));
        assert!(!change.saw(&card(1)));
        assert!(change.saw(&card(2)));
        let mut change = Change::after(card(1));
        assert!(!change.saw(&Presence::Absent));
        assert!(change.was_away() && change.saw(&card(1)));
        let mut change = Change::after(Presence::Absent);
        assert!(change.saw(&card(1)));
    }

    #[test]
    fn files_are_known_by_their_inodes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("card"), dir.path().join("other"));
        assert_eq!(look(&path).unwrap(), Presence::Absent);
        fs::write(&path, "1").unwrap();
        let first = look(&path).unwrap();
        assert_eq!(look(&path).unwrap(), first);
        fs::write(&other, "1").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(look(&path).unwrap(), first);
    }
}
