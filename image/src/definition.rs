//! Errors of recipe, board and lock files: where they are and what would be right.

use std::{fmt, ops::Range, path::Path};

use toml::Spanned;

/// A definition file says something that cannot be used.
#[derive(Debug)]
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

/// How long a trial may take, in seconds; init reads the same bounds (`init/src/cmdline.rs`) and
/// ignores what lies outside, so that a slip here would silently become its default.
pub(crate) const TRIAL_SECONDS: std::ops::RangeInclusive<u32> = 20..=7200;

/// A definition file while it is being checked.
pub(crate) struct Source<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Source<'_> {
    /// Parses the TOML; an unknown field or a wrong type is an error with its line and the
    /// fields that there are.
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, DefinitionError> {
        toml::from_str(self.text).map_err(|e| {
            let message = e.message().replace('\n', " ");
            let field = e.span().map(|s| {
                self.text
                    .get(s)
                    .unwrap_or("")
                    .lines()
                    .next()
                    .unwrap_or("")
                    .trim()
            });
            let message =
                match field.filter(|f| !f.is_empty() && f.len() < 60 && !message.contains(f)) {
                    Some(field) => format!("at `{field}`: {message}"),
                    None => message,
                };
            self.error(e.span(), message)
        })
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

    /// The optional `trial_seconds` of a board or recipe, within [`TRIAL_SECONDS`].
    pub(crate) fn trial_seconds(
        &self,
        value: Option<&Spanned<u32>>,
    ) -> Result<Option<u32>, DefinitionError> {
        match value {
            Some(bad) if !TRIAL_SECONDS.contains(bad.get_ref()) => {
                let message = format!(
                    "trial_seconds: {} must be between {} and {}",
                    bad.get_ref(),
                    TRIAL_SECONDS.start(),
                    TRIAL_SECONDS.end()
                );
                Err(self.error(Some(bad.span()), message))
            }
            other => Ok(other.map(|v| *v.get_ref())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The builder does not link init; its source still has to say the same.
    #[test]
    fn init_knows_the_same_bounds() {
        let bounds = format!("{}..={}", TRIAL_SECONDS.start(), TRIAL_SECONDS.end());
        assert!(include_str!("../../init/src/cmdline.rs").contains(&bounds));
    }
}
