//! Times, durations and sizes as people write and read them; foreign words made harmless.

use holdfast_core::grant::Grant;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by this machine's clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Reads `90s`, `30m`, `24h`, `7d`, or a number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 90s, 30m, 24h or 7d");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let n: u64 = digits.parse().map_err(|_| wrong())?;
    n.checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Reads `512M`, `8G`, or bytes; units are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write 512M, 8G or 1T");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        Some((at, 'T' | 't')) => (&text[..at], 1_u64 << 40),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .filter(|n| *n > 0)
        .ok_or_else(wrong)
}

/// `2026-11-21 08:15:00Z` of Unix seconds (days to a civil date: the proleptic Gregorian calendar
/// in 400-year eras that begin in March).
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// `3 s`, `5 min`, `2 h`, `4 d`: how long, roughly.
pub fn roughly(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `12.3 MiB` of bytes.
pub fn size(bytes: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    format!("{:.1} MiB", bytes as f64 / MIB)
}

/// `text` as one line without control characters: what comes from a node or the lighthouse must not
/// steer the operator's terminal, nor pass for another line.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// As [`plain`], of a text whose lines are meant.
pub fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// The name, or the names, that a grant gives.
pub fn names(grant: &Grant) -> Option<String> {
    if grant.names.is_none() {
        return grant.name.as_ref().map(ToString::to_string);
    }
    let name = |index| grant.name_at(index).ok().flatten();
    let (first, last) = (name(grant.first)?, name(grant.last)?);
    Some(match first == last {
        true => first.to_string(),
        false => format!("{first} to {last}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_do_not_steer_the_terminal() {
        assert_eq!(
            plain("a\x1b[2J\r\nb\u{9b}c\tö"),
            "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}c ö"
        );
        assert_eq!(plain_lines("a\n\x07b\n"), "a\n\u{fffd}b\n");
    }

    #[test]
    fn reads_and_refuses() {
        assert_eq!(parse_duration("24h").unwrap().as_secs(), 86_400);
        assert_eq!(parse_duration("90").unwrap().as_secs(), 90);
        assert_eq!(parse_duration("7d").unwrap().as_secs(), 604_800);
        for bad in ["", "h", "-1h", "1w", "99999999999999999999d", "1h30m", "é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_size("8G").unwrap(), 8 << 30);
        for bad in ["", "G", "1.5G", "0", "99999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00Z");
        assert_eq!(utc(1_767_225_599), "2025-12-31 23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00:00Z");
    }
}
