//! The software bill of materials (SPDX 2.3, JSON), out of the lock file.

use serde_json::{Value, json};

use crate::{
    digest::Digest,
    lock::{Lock, Locked},
};

/// Something in the image that is no Debian package.
pub(crate) struct Extra<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) sha256: Digest,
    pub(crate) license: &'a str,
    pub(crate) location: &'a str,
}

/// The document for an image called `name`; `who` are the lock's users that count (`root/amd64`, ...).
pub(crate) fn document(name: &str, lock: &Lock, who: &[String], extras: &[Extra<'_>]) -> Value {
    let packages = lock
        .packages
        .iter()
        .filter(|p| p.by.iter().any(|by| who.contains(by)));
    let mut entries: Vec<Value> = packages.map(|p| debian(p, &lock.suite)).collect();
    entries.extend(extras.iter().map(extra));
    let relations: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": entry["SPDXID"],
            })
        })
        .collect();
    let content = Digest::of(json!(entries).to_string().as_bytes());
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:holdfast:sbom:{content}"),
        "creationInfo": {
            "created": date(lock.date),
            "creators": [concat!("Tool: holdfast-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": entries,
        "relationships": relations,
    })
}

fn debian(p: &Locked, suite: &str) -> Value {
    json!({
        "SPDXID": id(&format!("deb-{}-{}", p.name, p.arch)),
        "name": p.name,
        "versionInfo": p.version,
        "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION",
        "packageFileName": p.path,
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": p.sha256 }],
        "sourceInfo": format!("Debian source package: {}", p.source),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!(
                "pkg:deb/debian/{}@{}?arch={}&distro={suite}", p.name, p.version.replace('+', "%2B"), p.arch
            ),
        }],
    })
}

fn extra(e: &Extra<'_>) -> Value {
    json!({
        "SPDXID": id(e.name),
        "name": e.name,
        "versionInfo": e.version,
        "downloadLocation": e.location,
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": e.license,
        "copyrightText": "NOASSERTION",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": e.sha256 }],
    })
}

/// SPDX ids hold letters, digits, `.` and `-`.
fn id(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    format!("SPDXRef-{plain}")
}

/// Unix seconds as `2026-09-12T07:55:41Z` (days to date: Howard Hinnant, "chrono-compatible
/// low-level date algorithms").
fn date(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_789_199_741), "2026-09-12T07:55:41Z");
    }

    #[test]
    fn ids_hold_no_odd_letters() {
        assert_eq!(id("deb-libstdc++6-amd64"), "SPDXRef-deb-libstdc--6-amd64");
    }
}
