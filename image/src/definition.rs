//! Errors of recipe, board and lock files: where they are and what would be right.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

use toml::Spanned;

use crate::{error::Error, near};

/// A definition file says something that cannot be used.
#[derive(Clone, Debug)]
pub struct DefinitionError {
    file: String,
    line: Option<usize>,
    message: String,
}

impl std::error::Error for DefinitionError {}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// File, line and field of a value.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    at: DefinitionError,
    field: &'static str,
}

/// A place in a definition file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

impl Origin {
    /// Where the value stands.
    pub(crate) fn place(&self) -> Place {
        Place {
            file: self.at.file.clone(),
            line: self.at.line,
        }
    }

    /// That the value is wrong, and what would be right.
    pub(crate) fn error(&self, message: impl fmt::Display) -> Error {
        DefinitionError {
            message: format!("{}: {message}", self.field),
            ..self.at.clone()
        }
        .into()
    }
}

/// One time that a value is named.
#[derive(Clone, Debug)]
pub(crate) struct Mention {
    origin: Origin,
    /// What is said of it (a setting's value), else empty.
    pub(crate) said: String,
}

impl Mention {
    /// Where it stands.
    pub(crate) fn place(&self) -> Place {
        self.origin.place()
    }
}

/// Where a definition's values stand, for what only the archive, the kernel or other definitions
/// can tell; the values of one file that extends another come after the other's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(BTreeMap<(&'static str, String), Vec<Mention>>);

impl Origins {
    /// Remembers where `value` stands.
    pub(crate) fn note(&mut self, field: &'static str, value: &Spanned<String>, of: &Source<'_>) {
        self.said(field, value.get_ref(), value.span(), "", of);
    }

    /// Remembers what the text at `span` says of `value`.
    pub(crate) fn said(
        &mut self,
        field: &'static str,
        value: &str,
        span: Range<usize>,
        said: &str,
        of: &Source<'_>,
    ) {
        let mention = Mention {
            origin: of.origin(field, span),
            said: said.to_owned(),
        };
        self.0
            .entry((field, value.to_owned()))
            .or_default()
            .push(mention);
    }

    /// All mentions of `value`.
    pub(crate) fn mentions(&self, field: &'static str, value: &str) -> &[Mention] {
        self.0
            .get(&(field, value.to_owned()))
            .map_or(&[], Vec::as_slice)
    }

    /// The values of a field, with their mentions.
    pub(crate) fn of<'a>(
        &'a self,
        field: &'static str,
    ) -> impl Iterator<Item = (&'a str, &'a [Mention])> {
        self.0
            .iter()
            .filter(move |((f, _), _)| *f == field)
            .map(|((_, value), mentions)| (value.as_str(), mentions.as_slice()))
    }

    /// `error`, with the place of the value it is about where that is known.
    pub(crate) fn blame(&self, field: &'static str, value: &str, error: Error) -> Error {
        match self.mentions(field, value).last() {
            Some(mention) => mention.origin.error(error),
            None => error,
        }
    }
}

/// How long a trial may take, in seconds; init reads the same bounds (`init/src/cmdline.rs`) and
/// ignores what lies outside, so that a slip here would silently become its default.
pub(crate) const TRIAL_SECONDS: std::ops::RangeInclusive<u32> = 20..=7200;
/// The bounds of `probation_seconds`; init refuses others.
pub(crate) const PROBATION_SECONDS: std::ops::RangeInclusive<u32> = 20..=86_400;

/// A definition file while it is being checked.
pub(crate) struct Source<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Source<'_> {
    /// Parses the TOML; an unknown field or a wrong type is an error with its line and field, and
    /// the fields or the type that would be right.
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, DefinitionError> {
        toml::from_str(self.text).map_err(|e| {
            let message = e.message().replace('\n', " ");
            // The parser's own words name these.
            let named = ["unknown field", "missing field", "duplicate"]
                .iter()
                .any(|start| message.starts_with(start));
            let place = match e.span() {
                Some(span) if named => self.table(span.start).map(|t| format!("in [{t}]")),
                Some(span) => self.field(span.start),
                None => None,
            };
            let meant = meant(&message);
            let message = match place {
                Some(place) => format!("{place}: {message}{meant}"),
                None => format!("{message}{meant}"),
            };
            self.error(e.span(), message)
        })
    }

    /// The lines up to the one with the byte `at`, backwards.
    fn lines_up(&self, at: usize) -> impl Iterator<Item = &str> {
        let end = self.text.len().min(at);
        let end = self.text[end..]
            .find('\n')
            .map_or(self.text.len(), |n| end + n);
        self.text[..end].lines().rev().map(str::trim)
    }

    /// The table that the byte `at` is in; none at the top of the file.
    fn table(&self, at: usize) -> Option<String> {
        let header = self.lines_up(at).find(|line| line.starts_with('['))?;
        let name = header.split('#').next().unwrap_or(header).trim();
        Some(name.trim_matches(['[', ']', ' ']).to_owned())
    }

    /// The field whose value the byte `at` is in: its line's, or that of a line above where a list
    /// goes over several.
    fn field(&self, at: usize) -> Option<String> {
        let key = |line: &str| {
            let (key, _) = line.split_once('=')?;
            let bare = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            let key = key.trim();
            (!key.is_empty() && key.chars().all(bare)).then(|| key.to_owned())
        };
        let key = self.lines_up(at).find_map(key)?;
        Some(match self.table(at) {
            Some(table) => format!("{table}.{key}"),
            None => key,
        })
    }

    /// Where a value stands that may turn out wrong later.
    pub(crate) fn origin(&self, field: &'static str, span: Range<usize>) -> Origin {
        Origin {
            at: self.error(Some(span), ""),
            field,
        }
    }

    pub(crate) fn error(
        &self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
    ) -> DefinitionError {
        let line = span.map(|s| {
            self.text[..s.start.min(self.text.len())]
                .matches('\n')
                .count()
                + 1
        });
        DefinitionError {
            file: self.file.display().to_string(),
            line,
            message: message.into(),
        }
    }

    /// An optional number of seconds of a board or recipe, within `bounds`.
    pub(crate) fn seconds(
        &self,
        field: &str,
        bounds: &std::ops::RangeInclusive<u32>,
        value: Option<&Spanned<u32>>,
    ) -> Result<Option<u32>, DefinitionError> {
        match value {
            Some(bad) if !bounds.contains(bad.get_ref()) => {
                let message = format!(
                    "{field}: {} must be between {} and {}",
                    bad.get_ref(),
                    bounds.start(),
                    bounds.end()
                );
                Err(self.error(Some(bad.span()), message))
            }
            other => Ok(other.map(|v| *v.get_ref())),
        }
    }
}

/// The name that an unknown field or variant is nearest to, out of those that the parser's message
/// lists.
fn meant(message: &str) -> String {
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return String::new();
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(wrong) => near::hint(wrong, quoted),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Sample {
        list: Vec<String>,
        part: Part,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Part {
        seconds: u16,
        args: Vec<String>,
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let told = |list: &str, part: &str| {
            let text = format!("list = {list}\n# a note\n[part] # one\n{part}\n");
            let source = Source {
                file: Path::new("s.toml"),
                text: &text,
            };
            source.parse::<Sample>().unwrap_err().to_string()
        };
        let good = "seconds = 1\nargs = []";
        let e = told("\"x\"", good);
        assert!(
            e.starts_with("s.toml:1: list: ") && e.contains("sequence"),
            "{e}"
        );
        let e = told("[\n  \"a=b\",\n  7,\n]", good);
        assert!(
            e.starts_with("s.toml:3: list: ") && e.contains("string"),
            "{e}"
        );
        let e = told("[]", "seconds = \"1\"\nargs = []");
        assert!(
            e.starts_with("s.toml:4: part.seconds: ") && e.contains("u16"),
            "{e}"
        );
        let e = told("[]", "seconds = 99999\nargs = []");
        assert!(e.starts_with("s.toml:4: part.seconds: "), "{e}");
        let e = told("[]", "seconds = 1\nargs = [\"a=b\", 7]");
        assert!(e.starts_with("s.toml:5: part.args: "), "{e}");
        let e = told("[]", "seconds = 1\nargs = [\"x\"");
        assert!(e.contains(": part.args: "), "{e}");
        let e = told("[]", "seconds = 1");
        assert!(
            e.starts_with("s.toml:3: in [part]: missing field `args`"),
            "{e}"
        );
        let e = told("[]", "seconds = 1\nargs = []\nmore = 1");
        assert!(
            e.starts_with("s.toml:6: in [part]: unknown field `more`") && e.contains("`seconds`"),
            "{e}"
        );
        assert!(!e.contains("did you mean"), "{e}");
        let e = told("[]", "secnods = 1\nargs = []");
        assert!(e.ends_with("did you mean \"seconds\"?"), "{e}");
    }

    /// The builder does not link init; its source still has to say the same.
    #[test]
    fn init_knows_the_same_bounds() {
        let init = include_str!("../../init/src/cmdline.rs").replace('_', "");
        for bounds in [TRIAL_SECONDS, PROBATION_SECONDS] {
            let text = format!("= {}..={};", bounds.start(), bounds.end());
            assert!(init.contains(&text), "{text}");
        }
    }
}
