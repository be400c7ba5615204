//! YAML as a tree of texts, lists and maps, bounded: no aliases, no deep nesting.

use saphyr_parser::{Event, Parser, ScanError};

/// Longest file that is read, in bytes.
pub const MAX_LEN: usize = 64 * 1024;
/// Deepest nesting.
const DEEPEST: usize = 16;

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A scalar, as it was written.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in its order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value of a map's `key`.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let (_, value) = self.entries().iter().find(|(k, _)| k == key)?;
        Some(value)
    }

    /// A scalar that is not empty or null.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !matches!(text.as_str(), "" | "~" | "null") => Some(text),
            _ => None,
        }
    }

    /// A list's members; a scalar is a list of one.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Text(_) if self.text().is_some() => std::slice::from_ref(self),
            _ => &[],
        }
    }

    /// A map's entries.
    pub fn entries(&self) -> &[(String, Self)] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// What is being read: a list, or a map with the key that waits for its value.
enum Open {
    List(Vec<Node>),
    Map(Vec<(String, Node)>, Option<String>),
}

/// The first document of `text`.
///
/// # Errors
/// What is wrong, with its line.
pub fn parse(text: &str) -> Result<Node, String> {
    if text.len() > MAX_LEN {
        return Err(format!("it has more than {MAX_LEN} bytes"));
    }
    let told = |e: ScanError| format!("line {}: {}", e.marker().line(), e.info());
    let mut open: Vec<Open> = vec![];
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(told)?;
        let wrong = |what: &str| Err(format!("line {}: {what}", span.start.line()));
        let done = match event {
            Event::Alias(_) => return wrong("aliases are not read"),
            Event::Scalar(text, ..) => Node::Text(text.into_owned()),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEEPEST => {
                return wrong("it is nested too deeply");
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(vec![]));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(vec![], None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Node::List(items),
                Some(Open::Map(entries, _)) => Node::Map(entries),
                None => return wrong("something ends that did not begin"),
            },
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(done),
            Some(Open::List(items)) => items.push(done),
            Some(Open::Map(entries, key)) => match (key.take(), done) {
                (Some(key), value) => entries.push((key, value)),
                (None, Node::Text(text)) => *key = Some(text),
                (None, _) => return wrong("a key that is no text"),
            },
        }
    }
    Err("it is empty".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_and_what_could_grow_without_end_is_not() {
        let tree = parse("a:\n  - 1\n  - 'two'\nb: {c: yes}\nd:\n").unwrap();
        let list: Vec<_> = tree
            .get("a")
            .unwrap()
            .items()
            .iter()
            .map(Node::text)
            .collect();
        assert_eq!(list, [Some("1"), Some("two")]);
        assert_eq!(tree.get("b").unwrap().get("c").unwrap().text(), Some("yes"));
        assert!(tree.get("d").unwrap().text().is_none());
        for (text, words) in [
            ("a: &x [1]\nb: *x\n", "line 2: aliases"),
            (&format!("{}{}", "[".repeat(20), "]".repeat(20)), "nested"),
            (&"[".repeat(1000), "recursion"),
            ("? [a]\n: b\n", "no text"),
            ("a: [1\n", "line"),
            ("", "empty"),
            (&"a".repeat(MAX_LEN + 1), "bytes"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text:.20}: {error}");
        }
    }
}
