//! The one thing that is read from a flattened device tree (Devicetree Specification 0.4, chapter 5):
//! what its root is compatible with.

const MAGIC: u32 = 0xd00d_feed;
/// The header's length.
pub const HEADER: usize = 40;
/// Larger trees are an accident.
pub const MAX: usize = 4 << 20;
const BEGIN_NODE: u32 = 1;
const PROP: u32 = 3;
const NOP: u32 = 4;

fn word(tree: &[u8], at: usize) -> Option<u32> {
    let bytes = tree.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The whole tree's length, from its header.
pub fn len(header: &[u8]) -> Option<usize> {
    let len = word(header, 4)? as usize;
    (word(header, 0)? == MAGIC && (HEADER..=MAX).contains(&len)).then_some(len)
}

/// The root's `compatible` strings; none where the tree makes no sense.
pub fn compatible(tree: &[u8]) -> impl Iterator<Item = &str> {
    let value = root_property(tree, b"compatible").unwrap_or_default();
    value
        .split(|b| *b == 0)
        .filter_map(|name| core::str::from_utf8(name).ok())
        .filter(|name| !name.is_empty())
}

/// The root's properties come before its first child.
fn root_property<'a>(tree: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    len(tree)?;
    let (mut at, strings) = (word(tree, 8)? as usize, word(tree, 12)? as usize);
    let mut inside = false;
    loop {
        let token = word(tree, at)?;
        at += 4;
        match token {
            // The root's name is empty: one word of zeros.
            BEGIN_NODE if !inside => (inside, at) = (true, at.checked_add(4)?),
            NOP => {}
            PROP if inside => {
                let (len, name) = (word(tree, at)? as usize, word(tree, at + 4)? as usize);
                let start = at.checked_add(8)?;
                let value = tree.get(start..start.checked_add(len)?)?;
                let name = tree.get(strings.checked_add(name)?..)?;
                if name.strip_prefix(wanted).and_then(<[u8]>::first) == Some(&0) {
                    return Some(value);
                }
                at = start.checked_add(len.checked_next_multiple_of(4)?)?;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn tree() -> Vec<u8> {
        let strings = b"model\0compatible\0";
        let mut words: Vec<u8> = Vec::new();
        let mut push = |n: u32| words.extend(n.to_be_bytes());
        for n in [BEGIN_NODE, 0, NOP, PROP, 3, 0] {
            push(n);
        }
        words.extend(b"Pi\0\0");
        for n in [PROP, 35, 6] {
            words.extend(u32::to_be_bytes(n));
        }
        words.extend(b"raspberrypi,3-model-b\0brcm,bcm2837\0\0");
        words.extend(BEGIN_NODE.to_be_bytes());
        let (at, end) = (HEADER as u32, (HEADER + words.len()) as u32);
        let mut tree = Vec::new();
        for n in [
            MAGIC,
            end + strings.len() as u32,
            at,
            end,
            0,
            17,
            16,
            0,
            0,
            0,
        ] {
            tree.extend(u32::to_be_bytes(n));
        }
        tree.extend(words);
        tree.extend(strings);
        tree
    }

    #[test]
    fn the_root_says_what_it_is() {
        let tree = tree();
        assert_eq!(len(&tree), Some(tree.len()));
        let names: Vec<_> = compatible(&tree).collect();
        assert_eq!(names, ["raspberrypi,3-model-b", "brcm,bcm2837"]);
    }

    #[test]
    fn any_damage_is_survived() {
        let tree = tree();
        for n in 0..tree.len() {
            let _ = compatible(&tree[..n]).count();
            let mut bad = tree.clone();
            bad[n] ^= 0xff;
            let _ = compatible(&bad).count();
        }
        assert_eq!(compatible(&[]).count(), 0);
    }
}
