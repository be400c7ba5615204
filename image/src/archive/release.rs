//! The signed index: `InRelease`, and the `Packages` file that it vouches for.

use std::{collections::BTreeSet, io::Read, time::SystemTime};

use super::{fetch::Fetcher, keyring::Keyring, packages::Index, stanza::stanzas};
use crate::{
    cache::{Cache, write_whole},
    digest::Digest,
    error::{Error, Result},
};

/// A verified index of one suite and architecture.
pub struct Release {
    /// The archive's own date of the index, Unix seconds.
    pub date: u64,
    /// The packages of the components that were asked for.
    pub index: Index,
}

/// Fetches and verifies the index of `suite` for `arch`.
///
/// # Errors
/// When it cannot be had, is not signed by the archive, or is not what it vouches for.
pub fn fetch(
    fetcher: &Fetcher,
    cache: &Cache,
    keyring: &Keyring,
    suite: &str,
    components: &BTreeSet<String>,
    arch: &str,
) -> Result<Release> {
    let base = format!("dists/{suite}");
    let message = fetcher.text(&format!("{base}/InRelease"))?;
    let what = fetcher.url(&format!("{base}/InRelease"));
    let text = keyring.verify(&what, &message, SystemTime::now())?;
    let mut release = Release {
        date: 0,
        index: Index::default(),
    };
    for component in components {
        let list = format!("{component}/binary-{arch}");
        let (date, digest, size) = packages_entry(&what, &text, suite, &list)?;
        release.date = date;
        let kept = cache.object(&digest);
        if !kept.exists() {
            let by_hash = format!("{base}/{list}/by-hash/SHA256/{digest}");
            fetcher.object(cache, &by_hash, &digest, size)?;
        }
        let bad = |e: std::io::Error| Error::Index {
            what: format!("{base}/{list}/Packages.xz"),
            reason: e.to_string(),
        };
        let packed = std::fs::File::open(&kept).map_err(bad)?;
        let mut text = String::new();
        liblzma::read::XzDecoder::new(packed)
            .read_to_string(&mut text)
            .map_err(bad)?;
        release
            .index
            .extend(&format!("{base}/{list}/Packages"), &text)?;
    }
    // Kept for people who want to know what the lock was made from; nothing reads it.
    write_whole(
        &cache.index(&format!("{suite}-InRelease")),
        message.as_bytes(),
    )?;
    Ok(release)
}

/// The date, and digest and size of `Packages.xz` in the folder `list`, from the signed text.
fn packages_entry(what: &str, text: &str, suite: &str, list: &str) -> Result<(u64, Digest, u64)> {
    let bad = |reason: String| Error::Index {
        what: what.to_owned(),
        reason,
    };
    let stanza = stanzas(text).next().ok_or_else(|| bad("empty".into()))?;
    let named = [stanza.get("Codename"), stanza.get("Suite")];
    if !named.contains(&Some(suite)) {
        return Err(bad(format!(
            "is the index of {}, not of {suite}",
            named[0].unwrap_or("nothing")
        )));
    }
    let date = stanza
        .get("Date")
        .and_then(|d| httpdate::parse_http_date(&d.replace("UTC", "GMT")).ok())
        .and_then(|d| d.duration_since(SystemTime::UNIX_EPOCH).ok())
        .ok_or_else(|| bad("has no date".into()))?
        .as_secs();
    let name = format!("{list}/Packages.xz");
    let entry = stanza
        .get("SHA256")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let (digest, size, path) = (words.next()?, words.next()?, words.next()?);
            (path == name)
                .then(|| Some((digest.parse().ok()?, size.parse().ok()?)))
                .flatten()
        });
    let (digest, size) = entry.ok_or_else(|| bad(format!("vouches for no {name}")))?;
    Ok((date, digest, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_the_architecture_is_found() {
        let d = "ab".repeat(32);
        let text = format!(
            "Suite: stable\r\nCodename: trixie\r\nDate: Sat, 12 Sep 2026 07:55:41 UTC\r\nSHA256:\r\n \
             {d} 12 main/binary-amd64/Packages.xz\r\n"
        );
        let (date, digest, size) =
            packages_entry("x", &text, "trixie", "main/binary-amd64").unwrap();
        assert_eq!((date, digest.to_string(), size), (1_789_199_741, d, 12));
        assert!(packages_entry("x", &text, "trixie", "main/binary-arm64").is_err());
        assert!(
            packages_entry("x", &text, "sid", "main/binary-amd64")
                .unwrap_err()
                .to_string()
                .contains("trixie")
        );
    }
}
