//! Memory that direct IO takes: it begins at a whole page.

const ALIGN: usize = 4096;

/// Bytes at an address that is a multiple of 4096.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Zeros.
    pub(crate) fn new(len: usize) -> Self {
        let memory = vec![0; len + ALIGN];
        // `align_offset` may refuse by its contract; then nothing is aligned, and the kernel says so.
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { memory, start, len }
    }

    /// A copy.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_a_page() {
        let buffer = Buffer::of(&[7; 5000]);
        assert_eq!(buffer.bytes().as_ptr() as usize % ALIGN, 0);
        assert_eq!(buffer.bytes(), [7; 5000]);
    }
}
