//! A root key on paper: 13 groups of four characters, each with a fifth that checks it.
//!
//! 256 bits of key and 4 of its SHA-256 make 52 characters of Crockford's base 32. A group's check
//! character is a sum over GF(32) with a weight for each place and a constant for each group, so
//! that any single wrong character, two neighbours swapped, or two groups swapped are noticed, and
//! the group with the mistake is named.

use holdfast_core::keys::{Digest, PrivateKey};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUPS: usize = 13;
const SYMBOLS: usize = 4;

/// Why a typed key was refused; never holds what was typed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaperError {
    /// Too many or too few characters.
    #[error("{0} characters; a printed root key has 65 (13 groups of 5)")]
    Length(usize),
    /// No character of the alphabet.
    #[error("group {group}: {bad:?} is not used in printed keys (no U, no punctuation but '-')")]
    Character {
        /// 1-based.
        group: usize,
        /// What stood there.
        bad: char,
    },
    /// The check character does not fit.
    #[error("group {0} holds a mistake, or stands in another's place: compare it with the paper")]
    Group(usize),
    /// Every group fits, the whole does not.
    #[error("the groups fit, the key as a whole does not: compare it with the paper")]
    Whole,
}

/// x · α over GF(32), α a root of x⁵ + x² + 1.
fn times_alpha(x: u8) -> u8 {
    let shifted = x << 1;
    if shifted & 32 == 0 {
        shifted
    } else {
        (shifted ^ 0b10_0101) & 31
    }
}

/// Weights α⁴ to α¹ for the four symbols; the check character itself has weight 1.
fn check(group: usize, symbols: &[u8]) -> u8 {
    let sum = symbols.iter().fold(0, |sum, s| times_alpha(sum ^ s));
    sum ^ (group as u8 + 1)
}

fn symbols_of(key: &PrivateKey) -> [u8; GROUPS * SYMBOLS] {
    let mut bytes = key.as_bytes().to_vec();
    bytes.push(Digest::of(key.as_bytes()).0[0] & 0xf0);
    std::array::from_fn(|i| {
        (0..5).fold(0, |symbol, b| {
            let bit = i * 5 + b;
            symbol << 1 | (bytes[bit / 8] >> (7 - bit % 8)) & 1
        })
    })
}

/// The groups, in order.
pub fn encode(key: &PrivateKey) -> Vec<String> {
    symbols_of(key)
        .chunks(SYMBOLS)
        .enumerate()
        .map(|(group, symbols)| {
            let all = symbols.iter().copied().chain([check(group, symbols)]);
            all.map(|s| char::from(ALPHABET[usize::from(s)])).collect()
        })
        .collect()
}

/// Reads what a person typed: spaces, dashes, line ends and small letters are as good.
///
/// # Errors
/// [`PaperError`] names the group to look at.
pub fn decode(text: &str) -> Result<PrivateKey, PaperError> {
    let mut symbols = Vec::with_capacity(GROUPS * (SYMBOLS + 1));
    for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let plain = match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let symbol = ALPHABET.iter().position(|a| char::from(*a) == plain);
        let group = symbols.len() / (SYMBOLS + 1) + 1;
        symbols.push(symbol.ok_or(PaperError::Character { group, bad: c })? as u8);
    }
    if symbols.len() != GROUPS * (SYMBOLS + 1) {
        return Err(PaperError::Length(symbols.len()));
    }
    let mut bytes = [0u8; 33];
    for (group, all) in symbols.chunks(SYMBOLS + 1).enumerate() {
        if check(group, &all[..SYMBOLS]) != all[SYMBOLS] {
            return Err(PaperError::Group(group + 1));
        }
        for (place, symbol) in all[..SYMBOLS].iter().enumerate() {
            for b in 0..5 {
                let bit = (group * SYMBOLS + place) * 5 + b;
                bytes[bit / 8] |= (symbol >> (4 - b) & 1) << (7 - bit % 8);
            }
        }
    }
    let mut secret = [0; 32];
    secret.copy_from_slice(&bytes[..32]);
    let key = PrivateKey::from_bytes(secret);
    if Digest::of(key.as_bytes()).0[0] & 0xf0 == bytes[32] {
        Ok(key)
    } else {
        Err(PaperError::Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_read_back_however_it_is_typed(secret: [u8; 32]) {
            let key = PrivateKey::from_bytes(secret);
            let groups = encode(&key);
            prop_assert_eq!(groups.len(), 13);
            for text in [groups.join(" "), groups.join("-").to_lowercase(), groups.join("\n").replace('0', "o").replace('1', "L")] {
                let read = decode(&text).unwrap();
                prop_assert_eq!(read.as_bytes(), &secret);
            }
        }

        #[test]
        fn a_wrong_character_names_its_group(secret: [u8; 32], place in 0usize..65, other in 0usize..32) {
            let mut text: Vec<char> = encode(&PrivateKey::from_bytes(secret)).concat().chars().collect();
            let wrong = char::from(ALPHABET[other]);
            prop_assume!(text[place] != wrong);
            text[place] = wrong;
            let typed: String = text.iter().collect();
            prop_assert_eq!(decode(&typed).unwrap_err(), PaperError::Group(place / 5 + 1));
        }

        #[test]
        fn swapped_neighbours_and_swapped_groups_are_noticed(secret: [u8; 32], at in 0usize..64, a in 0usize..13, b in 0usize..13) {
            let groups = encode(&PrivateKey::from_bytes(secret));
            let mut text: Vec<char> = groups.concat().chars().collect();
            if text[at] != text[at + 1] {
                text.swap(at, at + 1);
                prop_assert!(decode(&text.iter().collect::<String>()).is_err());
            }
            let mut swapped = groups.clone();
            swapped.swap(a, b);
            if swapped != groups {
                prop_assert!(decode(&swapped.concat()).is_err());
            }
        }
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(decode("ABCD").unwrap_err(), PaperError::Length(4));
        assert_eq!(
            decode("ABCDE U").unwrap_err(),
            PaperError::Character { group: 2, bad: 'U' }
        );
    }
}
