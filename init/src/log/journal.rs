//! journald's native protocol (systemd `docs/JOURNAL_NATIVE_PROTOCOL.md`) and the kernel's log
//! (`Documentation/ABI/testing/dev-kmsg`): bytes in, entry out.

/// The longest message that is kept, in bytes.
pub const MESSAGE_MAX: usize = 16 * 1024;

/// What a line says, before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who wrote it.
    pub unit: String,
    /// syslog severity.
    pub priority: u8,
    /// The text.
    pub message: String,
}

/// Names of programs as units are called.
fn unit_of(identifier: &str) -> String {
    identifier
        .strip_prefix("holdfast-")
        .unwrap_or(identifier)
        .chars()
        // One that holds a line's end would look like lines of others.
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(32)
        .collect()
}

/// Cuts a text and makes it one that is safe to print.
pub fn clean(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(MESSAGE_MAX)];
    let text = String::from_utf8_lossy(cut);
    text.trim_end()
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                ' '
            } else {
                c
            }
        })
        .collect()
}

/// Reads a datagram. What is not understood is left out, never an error.
pub fn native(datagram: &[u8]) -> Option<Entry> {
    let mut entry = Entry {
        unit: "unknown".into(),
        priority: 6,
        message: String::new(),
    };
    let mut extra = Vec::new();
    let mut rest = datagram;
    while let Some((name, value, tail)) = field(rest) {
        rest = tail;
        match name {
            b"MESSAGE" => entry.message = clean(value),
            b"PRIORITY" => entry.priority = priority(value).unwrap_or(6),
            b"SYSLOG_IDENTIFIER" => entry.unit = unit_of(&clean(value)),
            // What tracing-journald makes of an event's fields.
            _ => {
                if let Some(key) = name.strip_prefix(b"F_") {
                    extra.push(format!(
                        " {}={}",
                        clean(key).to_ascii_lowercase(),
                        clean(value)
                    ));
                }
            }
        }
    }
    entry.message.extend(extra);
    let mut end = entry.message.len().min(MESSAGE_MAX);
    while !entry.message.is_char_boundary(end) {
        end -= 1;
    }
    entry.message.truncate(end);
    (!entry.message.is_empty()).then_some(entry)
}

fn priority(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'0'..=b'7'] => Some(digit - b'0'),
        _ => None,
    }
}

/// One field: `NAME=value\n`, or `NAME\n`, length (64 bit, little endian), value, `\n`.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    if let Some(equals) = line.iter().position(|&b| b == b'=') {
        return Some((&line[..equals], &line[equals + 1..], rest));
    }
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let value = rest.get(..length)?;
    Some((line, value, rest.get(length + 1..).unwrap_or_default()))
}

/// Reads a record of `/dev/kmsg` (`PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`) with its sequence
/// number.
pub fn kernel(record: &[u8]) -> Option<(u64, Entry)> {
    let semicolon = record.iter().position(|&b| b == b';')?;
    let head = std::str::from_utf8(&record[..semicolon]).ok()?;
    let mut numbers = head.split(',');
    let priority = numbers.next()?.parse::<u32>().ok()?;
    let sequence = numbers.next()?.parse().ok()?;
    // Continuation lines begin with a space and hold device names.
    let text = record[semicolon + 1..].split(|&b| b == b'\n').next()?;
    let message = clean(text);
    let (unit, message) = match message.strip_prefix("holdfast-init: ") {
        Some(rest) => ("init", rest.to_owned()),
        None => ("kernel", message),
    };
    Some((
        sequence,
        Entry {
            unit: unit.into(),
            priority: (priority & 7) as u8,
            message,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_cannot_pretend_to_be_another_line() {
        let mut bytes = b"MESSAGE=x\nSYSLOG_IDENTIFIER\n".to_vec();
        bytes.extend(12_u64.to_le_bytes());
        bytes.extend(b"pod\n10:00 init\n");
        assert_eq!(native(&bytes).unwrap().unit, "pod 10:00 in");
    }

    #[test]
    fn native_fields_of_both_kinds() {
        let mut bytes = b"PRIORITY=4\nSYSLOG_IDENTIFIER=holdfast-agent\nMESSAGE\n".to_vec();
        bytes.extend(9_u64.to_le_bytes());
        bytes.extend(b"two\nlines\nF_PEER=n2\n");
        let entry = native(&bytes).unwrap();
        assert_eq!(entry.unit, "agent");
        assert_eq!(entry.priority, 4);
        assert_eq!(entry.message, "two\nlines peer=n2");
    }

    #[test]
    fn the_kernels_records_and_inits_own() {
        let (sequence, entry) =
            kernel(b"12,339,5140900,-;holdfast-init: up\n SUBSYSTEM=x\n").unwrap();
        assert_eq!(
            (
                sequence,
                entry.unit.as_str(),
                entry.message.as_str(),
                entry.priority
            ),
            (339, "init", "up", 4)
        );
        assert_eq!(kernel(b"6,1,2,-;hello").unwrap().1.unit, "kernel");
        assert_eq!(kernel(b"nonsense"), None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_bounded_and_printable(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut datagram = b"MESSAGE=x".to_vec();
            datagram.extend(bytes);
            if let Some(entry) = native(&datagram) {
                prop_assert!(entry.message.len() <= MESSAGE_MAX && entry.unit.len() <= 128);
                prop_assert!(!entry.message.contains('\x1b'));
            }
            let _ = kernel(&datagram);
        }
    }
}
