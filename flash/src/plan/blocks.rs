//! Which blocks of a buffer hold something.

use crate::BLOCK;

/// Gaps shorter than this are written with the data around them: one long write is cheaper than
/// two and a request for zeros. In blocks.
const GAP: usize = 8;

/// Stretches of `buffer`, in whole blocks, that hold something else than zeros. Offsets in bytes.
pub(crate) fn runs(buffer: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, block) in buffer.chunks(BLOCK as usize).enumerate() {
        if is_zero(block) {
            continue;
        }
        let start = i * BLOCK as usize;
        let end = start + block.len();
        match runs.last_mut() {
            Some(last) if start - last.end <= GAP * BLOCK as usize => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// Whether all bytes are zero; a few words at a time, as the compiler vectorises it.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(128);
    words.all(|w| w.iter().fold(0, |a, b| a | b) == 0)
        && bytes.chunks_exact(128).remainder().iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_byte_that_is_not_zero_is_in_a_run(
            bytes in prop::collection::vec((0usize..40 * BLOCK as usize, 1u8..), 0..20),
            len in 0usize..40 * BLOCK as usize,
        ) {
            let mut buffer = vec![0; len];
            for (at, byte) in bytes {
                if let Some(b) = buffer.get_mut(at) { *b = byte; }
            }
            let runs = runs(&buffer);
            let mut at = 0;
            for run in &runs {
                prop_assert!(is_zero(&buffer[at..run.start]));
                prop_assert!(at == 0 || run.start - at > GAP * BLOCK as usize);
                prop_assert_eq!(run.start % BLOCK as usize, 0);
                prop_assert!(run.end.is_multiple_of(BLOCK as usize) || run.end == len);
                prop_assert!(!is_zero(&buffer[run.start..(run.start + BLOCK as usize).min(len)]));
                at = run.end;
            }
            prop_assert!(buffer[at..].iter().all(|b| *b == 0));
        }
    }
}
