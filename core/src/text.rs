//! Short texts of fixed size, as they stand in raw blocks: one length byte, then UTF-8.

use core::fmt;

/// Up to `N` bytes of UTF-8 without an allocator (`N` at most 255).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const EMPTY: Self = Self {
        len: 0,
        bytes: [0; N],
    };

    /// Takes as many whole characters of `text` as fit.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut out = Self::EMPTY;
        let _ = fmt::Write::write_str(&mut out, text);
        out
    }

    /// Takes `text` whole, or `None` when it is too long.
    #[must_use]
    pub fn exact(text: &str) -> Option<Self> {
        (text.len() <= N).then(|| Self::new(text))
    }

    /// Formats `value` into as many whole characters as fit.
    #[must_use]
    pub fn of(value: impl fmt::Display) -> Self {
        let mut out = Self::EMPTY;
        let _ = fmt::write(&mut out, format_args!("{value}"));
        out
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|b| core::str::from_utf8(b).ok())
            .unwrap_or_default()
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// From one length byte and `N` bytes; `None` when the length or the UTF-8 is wrong.
    pub(crate) fn read(block: &[u8], at: usize) -> Option<Self> {
        let len = *block.get(at)?;
        let bytes: [u8; N] = block.get(at + 1..at + 1 + N)?.try_into().ok()?;
        core::str::from_utf8(bytes.get(..usize::from(len))?).ok()?;
        // What follows the text is not part of it, and would make equal texts differ.
        let mut clean = [0; N];
        clean[..usize::from(len)].copy_from_slice(&bytes[..usize::from(len)]);
        Some(Self { len, bytes: clean })
    }

    /// Writes one length byte and `N` bytes.
    pub(crate) fn write(&self, block: &mut [u8], at: usize) {
        block[at] = self.len;
        block[at + 1..at + 1 + N].copy_from_slice(&self.bytes);
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            let start = usize::from(self.len);
            let end = start + c.len_utf8();
            if end > N || end > 255 {
                return Err(fmt::Error);
            }
            c.encode_utf8(&mut self.bytes[start..end]);
            self.len = end as u8;
        }
        Ok(())
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_whole_characters() {
        assert_eq!(Text::<4>::new("abcé").as_str(), "abc");
        assert_eq!(Text::<5>::new("abcé").as_str(), "abcé");
        assert!(Text::<4>::exact("abcé").is_none());
        assert_eq!(Text::<8>::of(12).as_str(), "12");
    }

    #[test]
    fn a_wrong_length_or_bad_utf8_is_refused() {
        let mut block = [0u8; 16];
        Text::<4>::new("ab").write(&mut block, 3);
        assert_eq!(Text::<4>::read(&block, 3), Some(Text::new("ab")));
        block[3] = 5;
        assert_eq!(Text::<4>::read(&block, 3), None);
        block[3] = 2;
        block[5] = 0xff;
        assert_eq!(Text::<4>::read(&block, 3), None);
        assert_eq!(Text::<4>::read(&block, 14), None);
    }
}
