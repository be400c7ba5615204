//! Values of settings as TOML has them: texts, numbers, flags, lists of texts, and tables, which
//! dotted keys make (`net.ipv4.ip_forward = 1`).

use std::{collections::BTreeMap, fmt, ops::Range};

use serde::{
    Deserialize,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use toml::Spanned;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `true`, `false`.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// A value or a table of them.
#[derive(Debug)]
pub(super) enum Node {
    One(Setting),
    Table(BTreeMap<String, Spanned<Node>>),
}

/// `tree` without tables: keys joined by dots, each with its value and where that stands.
pub(super) fn flat(tree: BTreeMap<String, Spanned<Node>>) -> Vec<(String, Setting, Range<usize>)> {
    let mut out = Vec::new();
    let mut left: Vec<(String, Spanned<Node>)> = tree.into_iter().collect();
    while let Some((key, node)) = left.pop() {
        let span = node.span();
        match node.into_inner() {
            Node::One(setting) => out.push((key, setting, span)),
            Node::Table(inner) => left.extend(
                inner
                    .into_iter()
                    .map(|(name, node)| (format!("{key}.{name}"), node)),
            ),
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number, true, false or a list of texts")
            }

            fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
                Ok(Node::One(Setting::Flag(v)))
            }

            fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
                Ok(Node::One(Setting::Number(v)))
            }

            fn visit_str<E>(self, v: &str) -> Result<Node, E> {
                Ok(Node::One(Setting::Text(v.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(text) = seq.next_element()? {
                    list.push(text);
                }
                Ok(Node::One(Setting::List(list)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut table = BTreeMap::new();
                while let Some((key, node)) = map.next_entry()? {
                    table.insert(key, node);
                }
                Ok(Node::Table(table))
            }
        }
        from.deserialize_any(Any)
    }
}
