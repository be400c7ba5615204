//! What the kernel is told: the UKI's own command line and which boot this is.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use holdfast_core::header::Watchdog;
use holdfast_core::slots::{BootId, Start, Target};

/// Why a payload is no UKI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    /// Not a PE file.
    #[error("the payload is no EFI program")]
    NotPe,
    /// A PE file without a usable command line.
    #[error("the payload has no readable .cmdline section")]
    NoCommandLine,
}

/// The text of a UKI's `.cmdline` section (UAPI group, "Unified Kernel Image"; PE/COFF
/// specification, sections 2 to 4).
///
/// # Errors
/// [`UkiError`].
pub fn command_line(uki: &[u8]) -> Result<&str, UkiError> {
    let section = section(uki, b".cmdline").ok_or(UkiError::NotPe)?;
    let text = section
        .and_then(|b| core::str::from_utf8(b).ok())
        .ok_or(UkiError::NoCommandLine)?;
    Ok(text.trim_matches(|c: char| c == '\0' || c.is_ascii_whitespace()))
}

/// `None`: not a PE file; `Some(None)`: no such section, or one that leaves the file.
fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<Option<&'a [u8]>> {
    let pe = u32_at(file, 0x3c)?;
    if file.get(..2)? != b"MZ" || file.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let count = u16_at(file, pe + 6)?;
    let table = pe + 24 + u16_at(file, pe + 20)?;
    let headers = file.get(table..table.checked_add(count * 40)?)?;
    Some(
        headers
            .chunks_exact(40)
            .find(|h| named(h, name))
            .and_then(|h| {
                let len = u32_at(h, 8)?.min(u32_at(h, 16)?);
                let at = u32_at(h, 20)?;
                file.get(at..at.checked_add(len)?)
            }),
    )
}

fn named(header: &[u8], name: &[u8]) -> bool {
    header
        .get(..8)
        .is_some_and(|n| n.starts_with(name) && n[name.len()..].iter().all(|b| *b == 0))
}

fn u16_at(b: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(b.get(at..at.checked_add(2)?)?.try_into().ok()?).into())
}

fn u32_at(b: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(
        b.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
    .ok()
}

/// The whole command line as load options: UCS-2 with a final zero (UEFI 2.10, 9.1).
#[must_use]
pub fn load_options(
    command_line: &str,
    boot_id: &BootId,
    start: &Start,
    armed: Option<Watchdog>,
) -> Vec<u16> {
    let mut text = String::from(command_line);
    text.push_str(" holdfast.boot=");
    for byte in boot_id {
        let _ = write!(text, "{byte:02x}");
    }
    let _ = write!(
        text,
        " holdfast.slot={} holdfast.try={}",
        start.target.name(),
        start.attempt
    );
    if start.target == Target::Rescue {
        text.push_str(" holdfast.rescue=1");
    }
    if let Some(watchdog) = armed {
        let _ = write!(text, " holdfast.armed={watchdog}");
    }
    text.encode_utf16().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::slots::{Code, Slot};

    fn uki(name: &[u8], text: &[u8]) -> Vec<u8> {
        let mut f = vec![0; 0x200];
        f[..2].copy_from_slice(b"MZ");
        f[0x3c] = 0x80;
        f[0x80..0x84].copy_from_slice(b"PE\0\0");
        f[0x86] = 1;
        let header = 0x80 + 24;
        f[header..header + name.len()].copy_from_slice(name);
        f[header + 8] = text.len() as u8;
        f[header + 16..header + 18].copy_from_slice(&0x200u16.to_le_bytes());
        f[header + 20..header + 22].copy_from_slice(&0x200u16.to_le_bytes());
        f.extend_from_slice(text);
        f.resize(0x400, 0);
        f
    }

    #[test]
    fn finds_the_section() {
        assert_eq!(
            command_line(&uki(b".cmdline", b"quiet x=1\n\0")),
            Ok("quiet x=1")
        );
        assert_eq!(
            command_line(&uki(b".cmd", b"quiet")),
            Err(UkiError::NoCommandLine)
        );
        assert_eq!(
            command_line(&uki(b".cmdline", b"\xff")),
            Err(UkiError::NoCommandLine)
        );
        assert_eq!(command_line(b"MZ"), Err(UkiError::NotPe));
        assert_eq!(command_line(&[]), Err(UkiError::NotPe));
    }

    #[test]
    fn any_truncation_is_an_error_or_the_same() {
        let whole = uki(b".cmdline", b"quiet");
        for len in 0..whole.len() {
            let read = command_line(&whole[..len]);
            assert!(read.is_err() || read == Ok("quiet"), "{len}");
        }
    }

    #[test]
    fn says_which_boot_this_is() {
        let start = |target| Start {
            target,
            attempt: 2,
            tries_left: 1,
            trial: true,
            why: Code::ON_TRIAL,
        };
        let armed = |s, w| String::from_utf16(&load_options("quiet", &[0xab; 16], &s, w)).unwrap();
        let text = |s| armed(s, None);
        assert_eq!(
            text(start(Target::Slot(Slot::B))),
            "quiet holdfast.boot=abababababababababababababababab holdfast.slot=b holdfast.try=2\0"
        );
        assert!(
            text(start(Target::Rescue))
                .ends_with("holdfast.slot=rescue holdfast.try=2 holdfast.rescue=1\0")
        );
        assert!(
            armed(start(Target::Slot(Slot::A)), Some(Watchdog::Itco))
                .ends_with(" holdfast.try=2 holdfast.armed=itco\0")
        );
    }
}
