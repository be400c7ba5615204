//! What is mounted and swapped to, from `/proc` (proc(5)).

use super::DevNumber;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The file system's device number; some file systems (btrfs) have one that no disk has.
    pub number: DevNumber,
    /// What was mounted, as the kernel says it; kernel names once the snapshot resolved them.
    pub sources: Vec<String>,
    /// Where.
    pub target: String,
}

impl Mount {
    /// Whether it is of the device of this name and number.
    #[must_use]
    pub fn is_of(&self, name: &str, number: DevNumber) -> bool {
        self.number == number || self.sources.iter().any(|s| s == name)
    }
}

/// Reads `mountinfo`; lines that are none are passed over.
#[must_use]
pub fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(2);
    let number = before.next()?.parse().ok()?;
    let target = unescape(before.nth(1)?);
    let source = unescape(after.split(' ').nth(1)?);
    Some(Mount {
        number,
        // bcachefs lists its disks with colons between them.
        sources: source
            .split(':')
            .filter(|s| s.starts_with('/'))
            .map(str::to_owned)
            .collect(),
        target,
    })
}

/// Reads `/proc/swaps`: the first column below the heading.
#[must_use]
pub fn parse_swaps(text: &str) -> Vec<String> {
    text.lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().next())
        .map(unescape)
        .collect()
}

/// Blanks and backslashes stand as three octal digits.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 4).filter(|_| byte == b'\\');
        let code = code.and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(code) => {
                out.push(code);
                at += 4;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_as_the_kernel_writes_them() {
        let text = "\
36 35 98:0 /mnt1 /mnt/my\\040disk rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue
45 27 0:41 / /home rw - btrfs /dev/sdb2 rw,subvolid=5
46 27 0:42 / /data rw - bcachefs /dev/sdc:/dev/sdd rw
nonsense
22 27 0:21 / /proc rw,relatime - proc proc rw
";
        let mounts = parse_mounts(text);
        assert_eq!(mounts.len(), 4);
        let number = |major, minor| DevNumber { major, minor };
        assert_eq!(mounts[0].target, "/mnt/my disk");
        assert!(mounts[0].is_of("x", number(98, 0)));
        assert!(mounts[1].is_of("/dev/sdb2", number(8, 18)));
        assert_eq!(mounts[2].sources, ["/dev/sdc", "/dev/sdd"]);
        assert!(mounts[3].sources.is_empty());
        let swaps =
            "Filename Type Size Used Priority\n/dev/sda3  partition 1 0 -2\n/a\\040b file 1 0 1\n";
        assert_eq!(parse_swaps(swaps), ["/dev/sda3", "/a b"]);
        assert!(parse_swaps("").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in "(?s).{0,400}") {
            let _ = (parse_mounts(&text), parse_swaps(&text));
        }

        #[test]
        fn bent_lines_do_not_break_them(at in 0usize..120, with in "[\\\\ :0-9é/-]{0,6}") {
            let mut line = "36 35 98:0 /mnt1 /mnt/my\\040disk rw master:1 - ext3 /dev/sdb1 rw,e".to_owned();
            let at = at.min(line.len());
            line.replace_range(at.., &with);
            let _ = parse_mounts(&line);
            prop_assert!(unescape(&line).len() <= line.len() * 3);
        }
    }
}
