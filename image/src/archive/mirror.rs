//! Which mirror the packages come from: the option, `HOLDFAST_MIRROR`, or the one that the
//! host's own apt uses. The code names none.

use std::{fs, path::Path};

use crate::error::{Error, Result};

/// One source of the host's apt configuration.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    keyring: Option<String>,
}

/// The mirror to use: `option`, else `HOLDFAST_MIRROR`, else what `/etc/apt` names.
///
/// # Errors
/// [`Error::NoMirror`] when none of the three names one.
pub fn discover(option: Option<&str>) -> Result<String> {
    let chosen = option
        .map(str::to_owned)
        .or_else(|| {
            std::env::var("HOLDFAST_MIRROR")
                .ok()
                .filter(|m| !m.is_empty())
        })
        .or_else(|| from_apt(Path::new("/etc/apt")));
    chosen
        .map(|m| m.trim_end_matches('/').to_owned())
        .ok_or(Error::NoMirror)
}

/// The first Debian mirror that the configuration below `etc_apt` names.
fn from_apt(etc_apt: &Path) -> Option<String> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(dir) = fs::read_dir(etc_apt.join("sources.list.d")) {
        files.extend(dir.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let sources: Vec<Source> = files
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            match path.extension()?.to_str()? {
                "list" => Some(one_line(&text)),
                "sources" => Some(deb822(&text)),
                _ => None,
            }
        })
        .flatten()
        .collect();
    sources.iter().find(|s| is_debian(s)).map(|s| s.uri.clone())
}

/// Debian's own archive, and not its security updates or somebody else's packages: signed by
/// Debian's keyring or by apt's defaults, for a suite of Debian's.
fn is_debian(source: &Source) -> bool {
    const SUITES: [&str; 10] = [
        "stable",
        "oldstable",
        "testing",
        "unstable",
        "sid",
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
    ];
    let own_key = source
        .keyring
        .as_deref()
        .is_none_or(|k| k.contains("debian-archive"));
    let suite = |s: &String| {
        SUITES.contains(&s.as_str())
            || s.split_once('-')
                .is_some_and(|(s, of)| SUITES.contains(&s) && matches!(of, "updates" | "backports"))
    };
    let http = source.uri.starts_with("http://") || source.uri.starts_with("https://");
    own_key && http && source.suites.iter().any(suite)
}

/// `deb [options] URI SUITE COMPONENT...`, one a line (sources.list(5)).
fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim();
            let rest = line
                .strip_prefix("deb")?
                .strip_prefix([' ', '\t'])?
                .trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let mut words = rest.split_whitespace();
            Some(Source {
                uri: words.next()?.to_owned(),
                suites: vec![words.next()?.to_owned()],
                keyring: options
                    .split_whitespace()
                    .find_map(|o| o.strip_prefix("signed-by="))
                    .map(str::to_owned),
            })
        })
        .collect()
}

/// Stanzas of `Types:`, `URIs:`, `Suites:`, ... (sources.list(5), deb822 style).
fn deb822(text: &str) -> Vec<Source> {
    super::stanza::stanzas(text)
        .filter(|s| {
            let enabled = s
                .get("Enabled")
                .is_none_or(|e| !matches!(e, "no" | "false" | "0"));
            enabled
                && s.get("Types")
                    .is_some_and(|t| t.split_whitespace().any(|t| t == "deb"))
        })
        .flat_map(|s| {
            let words = |key| -> Vec<String> {
                s.get(key)
                    .unwrap_or("")
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect()
            };
            let (suites, keyring) = (words("Suites"), s.get("Signed-By").map(str::to_owned));
            words("URIs").into_iter().map(move |uri| Source {
                uri,
                suites: suites.clone(),
                keyring: keyring.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_are_read() {
        let list = "# deb http://old.example/debian x main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main # c\n\
                    deb-src http://m.example/debian bookworm main\n";
        assert_eq!(
            one_line(list),
            [Source {
                uri: "http://m.example/debian".into(),
                suites: vec!["bookworm".into()],
                keyring: Some("/k.gpg".into())
            }]
        );
        let sources = "Types: deb\n# comment\nURIs: http://m.example/debian\nSuites: trixie trixie-updates\n\
                       Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                       Types: deb-src\nURIs: http://s.example\nSuites: trixie\n";
        let found = deb822(sources);
        assert_eq!(found.len(), 1);
        assert!(is_debian(&found[0]));
    }

    #[test]
    fn foreign_repositories_and_security_updates_are_not_mirrors() {
        let foreign = one_line("deb https://p.example/apt cloud-sdk main\n");
        assert!(!is_debian(&foreign[0]));
        let security = one_line("deb http://m.example/debian-security bookworm-security main");
        assert!(!is_debian(&security[0]));
    }

    #[test]
    fn the_files_are_found_below_a_root() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(from_apt(dir.path()), None);
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        fs::write(
            dir.path().join("sources.list.d/debian.sources"),
            "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\n",
        )
        .unwrap();
        assert_eq!(
            from_apt(dir.path()).as_deref(),
            Some("http://m.example/debian")
        );
    }
}
