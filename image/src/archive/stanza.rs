//! Debian's control format: stanzas of `Field: value` lines (deb822(5)).

/// One stanza; fields in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Stanza<'a> {
    /// A field's value with its continuation lines, compared without regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| *v)
    }
}

/// The stanzas of `text`, comments and junk lines left out.
pub fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let trimmed = rest.trim_start_matches(['\n', '\r']);
            if trimmed.trim().is_empty() {
                return None;
            }
            let end = blank_line(trimmed);
            let (stanza, after) = trimmed.split_at(end);
            rest = after;
            let fields = fields(stanza);
            if !fields.is_empty() {
                return Some(Stanza { fields });
            }
        }
    })
}

/// Offset of the line break before the next empty line.
fn blank_line(text: &str) -> usize {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            return offset;
        }
        offset += line.len();
    }
    text.len()
}

fn fields(stanza: &str) -> Vec<(&str, &str)> {
    let mut out = Vec::new();
    let mut open: Option<(&str, usize, usize)> = None;
    let mut offset = 0;
    for line in stanza.split_inclusive('\n') {
        let end = offset + line.len();
        match line.as_bytes().first() {
            Some(b' ' | b'\t') => {
                if let Some((_, _, e)) = &mut open {
                    *e = end;
                }
            }
            Some(b'#') => {}
            _ => {
                if let Some((name, from, to)) = open.take() {
                    out.push((name, stanza[from..to].trim()));
                }
                if let Some((name, value)) = line.split_once(':') {
                    open = Some((name, end - value.len(), end));
                }
            }
        }
        offset = end;
    }
    if let Some((name, from, to)) = open {
        out.push((name, stanza[from..to].trim()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_go_on_over_lines() {
        let all: Vec<_> =
            stanzas("\nA: 1\nB: x\n y\n z\nC:\n\n\n# only a comment\n\nA: 2\n").collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("a"), Some("1"));
        assert_eq!(all[0].get("B"), Some("x\n y\n z"));
        assert_eq!(all[0].get("C"), Some(""));
        assert_eq!(all[1].get("A"), Some("2"));
    }
}
