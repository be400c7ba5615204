//! Order of Debian package versions (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions: epoch, upstream version, revision.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let (ea, ua, ra) = split(a);
    let (eb, ub, rb) = split(b);
    ea.cmp(&eb)
        .then_with(|| part(ua, ub))
        .then_with(|| part(ra, rb))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Alternating runs of non-digits (letters before others, `~` before the end) and of digits.
fn part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (ta, tb) = (text_run(&mut a), text_run(&mut b));
        let mut ranks = (ta.bytes().map(rank), tb.bytes().map(rank));
        loop {
            match (ranks.0.next(), ranks.1.next()) {
                (None, None) => break,
                (x, y) => match x.unwrap_or(0).cmp(&y.unwrap_or(0)) {
                    Ordering::Equal => {}
                    other => return other,
                },
            }
        }
        let (na, nb) = (digit_run(&mut a), digit_run(&mut b));
        match na.len().cmp(&nb.len()).then_with(|| na.cmp(nb)) {
            Ordering::Equal => {}
            other => return other,
        }
    }
    Ordering::Equal
}

/// `~` sorts before the end of the string (0), letters after it, everything else last.
fn rank(c: u8) -> i32 {
    match c {
        b'~' => -1,
        c if c.is_ascii_alphabetic() => i32::from(c),
        c => i32::from(c) + 256,
    }
}

fn text_run<'a>(s: &mut &'a str) -> &'a str {
    take(s, |c| !c.is_ascii_digit())
}

fn digit_run<'a>(s: &mut &'a str) -> &'a str {
    take(s, |c| c.is_ascii_digit()).trim_start_matches('0')
}

fn take<'a>(s: &mut &'a str, want: impl Fn(u8) -> bool) -> &'a str {
    let end = s.bytes().position(|c| !want(c)).unwrap_or(s.len());
    let (head, tail) = s.split_at(end);
    *s = tail;
    head
}

/// A relation such as `>= 1.2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// `<<`, `<=`, `=`, `>=` or `>>`.
    pub relation: String,
    /// The version on its right.
    pub version: String,
}

impl Constraint {
    /// Whether `version` satisfies it. An unknown relation is satisfied by nothing.
    #[must_use]
    pub fn allows(&self, version: &str) -> bool {
        let order = compare(version, &self.version);
        match self.relation.as_str() {
            "<<" => order.is_lt(),
            "<=" | "<" => order.is_le(),
            "=" => order.is_eq(),
            ">=" | ">" => order.is_ge(),
            ">>" => order.is_gt(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples_from_the_policy() {
        let ascending = [
            "1.0~~", "1.0~~a", "1.0~", "1.0", "1.0-1", "1.0-1+b1", "1.0-1.1", "1.0a", "1.0+1",
            "1.2", "1.10", "1:0.1",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("1.00", "1.0"), Ordering::Equal);
        assert_eq!(compare("6.12.107-1", "6.12.90-2"), Ordering::Greater);
    }

    proptest! {
        #[test]
        fn the_order_is_antisymmetric(a in "[0-9a-z.+~-]{0,12}", b in "[0-9a-z.+~-]{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }
}
