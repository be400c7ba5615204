//! The root as a value: what lies where, before any file system is made.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    digest::{Digest, Inputs},
    error::{Error, Result},
    pack::{Kind, Pack, Slice},
};

/// A file's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Bytes(Arc<[u8]>),
    Slice(Slice),
}

impl Data {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Slice(slice) => slice.len,
        }
    }

    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.to_vec()),
            Self::Slice(slice) => slice.read(),
        }
    }
}

/// Something with a name. Everything belongs to root.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Dir { mode: u32 },
    File { mode: u32, data: Data },
    Link { target: String },
}

/// Paths (without a leading slash) and what is there; parents come before their children.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Puts `node` at `path`, makes its parents, replaces what was there.
    pub(crate) fn insert(&mut self, path: &str, node: Node) {
        let parents: Vec<&str> = path.match_indices('/').map(|(i, _)| &path[..i]).collect();
        for parent in parents {
            self.nodes
                .entry(parent.to_owned())
                .or_insert(Node::Dir { mode: 0o755 });
        }
        match (&node, self.nodes.get(path)) {
            // A folder that several packages bring is one folder.
            (Node::Dir { .. }, Some(Node::Dir { .. })) => {}
            _ => {
                self.nodes.insert(path.to_owned(), node);
            }
        }
    }

    pub(crate) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let data = Data::Bytes(content.into().into());
        self.insert(path, Node::File { mode: 0o644, data });
    }

    pub(crate) fn program(&mut self, path: &str, data: Data) {
        self.insert(path, Node::File { mode: 0o755, data });
    }

    pub(crate) fn dir(&mut self, path: &str, mode: u32) {
        self.insert(path, Node::Dir { mode });
        self.nodes.insert(path.to_owned(), Node::Dir { mode });
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.insert(
            path,
            Node::Link {
                target: target.to_owned(),
            },
        );
    }

    /// Adds everything of a package.
    pub(crate) fn add_pack(&mut self, pack: &Pack) {
        for entry in &pack.entries {
            let node = match &entry.kind {
                Kind::Dir { mode } => Node::Dir { mode: *mode },
                Kind::Link { target } => Node::Link {
                    target: target.clone(),
                },
                Kind::File { mode, offset, len } => Node::File {
                    mode: *mode,
                    data: Data::Slice(pack.slice(*offset, *len)),
                },
            };
            self.insert(&entry.path, node);
        }
    }

    /// Removes `pattern` (a path; `*` at its end stands for any rest) with what lies below.
    pub(crate) fn remove(&mut self, pattern: &str) {
        self.nodes.retain(|path, _| !removed(pattern, path));
    }

    /// Removes folders that hold nothing, except those in `keep`.
    pub(crate) fn remove_empty_dirs(&mut self, keep: &[&str]) {
        loop {
            let paths: Vec<&String> = self.nodes.keys().collect();
            let mut empty = Vec::new();
            for path in &paths {
                let below = format!("{path}/");
                let used = self
                    .nodes
                    .range(below.clone()..)
                    .next()
                    .is_some_and(|(p, _)| p.starts_with(&below));
                if !used
                    && matches!(self.nodes[*path], Node::Dir { .. })
                    && !keep.contains(&path.as_str())
                {
                    empty.push((*path).clone());
                }
            }
            if empty.is_empty() {
                return;
            }
            for path in empty {
                self.nodes.remove(&path);
            }
        }
    }

    /// The largest files, with their lengths in bytes before compression.
    pub(crate) fn largest(&self, count: usize) -> Vec<(&str, u64)> {
        let mut files: Vec<(&str, u64)> = self
            .nodes
            .iter()
            .filter_map(|(path, node)| match node {
                Node::File { data, .. } => Some((path.as_str(), data.len())),
                _ => None,
            })
            .collect();
        files.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        files.truncate(count);
        files
    }

    /// Nothing may lie below a link or a file: two packages (or a recipe) that disagree.
    pub(crate) fn check(&self) -> Result<()> {
        for path in self.nodes.keys() {
            let parent = path.rsplit_once('/').map(|(p, _)| p);
            if let Some(parent) = parent
                && !matches!(self.nodes.get(parent), Some(Node::Dir { .. }))
            {
                return Err(Error::build(
                    "root",
                    format!("/{path} lies below /{parent}, which is no folder"),
                ));
            }
        }
        Ok(())
    }

    /// Stands for the whole content in cache keys.
    pub(crate) fn key(&self, stage: &str) -> Digest {
        let mut inputs = Inputs::of(stage);
        for (path, node) in &self.nodes {
            inputs = inputs.with(path);
            inputs = match node {
                Node::Dir { mode } => inputs.with("d").with(mode.to_le_bytes()),
                Node::Link { target } => inputs.with("l").with(target),
                Node::File {
                    mode,
                    data: Data::Bytes(bytes),
                } => inputs.with("b").with(mode.to_le_bytes()).with(bytes),
                Node::File {
                    mode,
                    data: Data::Slice(s),
                } => inputs
                    .with("s")
                    .with(mode.to_le_bytes())
                    .with(&*s.key)
                    .with(s.offset.to_le_bytes())
                    .with(s.len.to_le_bytes()),
            };
        }
        inputs.key()
    }
}

/// Whether `pattern` (a path; `*` at its end stands for any rest) removes `path`.
pub(crate) fn removed(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path
            .strip_prefix(pattern)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_takes_what_lies_below_and_empty_folders() {
        let mut tree = Tree::default();
        tree.file("usr/share/a/b", "1");
        tree.file("usr/share/ab", "2");
        tree.dir("var", 0o755);
        tree.remove("usr/share/a");
        tree.remove("usr/share/x*");
        tree.remove_empty_dirs(&["var"]);
        assert_eq!(
            tree.nodes.keys().collect::<Vec<_>>(),
            ["usr", "usr/share", "usr/share/ab", "var"]
        );
        let before = tree.key("t");
        tree.remove("usr/share/a*");
        tree.remove_empty_dirs(&["var"]);
        assert_eq!(tree.nodes.keys().collect::<Vec<_>>(), ["var"]);
        assert_ne!(before, tree.key("t"));
    }

    #[test]
    fn the_largest_files_come_first() {
        let mut tree = Tree::default();
        tree.file("a", "1");
        tree.file("b/c", "333");
        tree.file("b/d", "22");
        tree.link("l", "b");
        assert_eq!(tree.largest(2), [("b/c", 3), ("b/d", 2)]);
    }

    #[test]
    fn a_file_below_a_link_is_refused() {
        let mut tree = Tree::default();
        tree.link("bin", "usr/bin");
        tree.file("bin/x", "");
        assert!(tree.check().unwrap_err().to_string().contains("/bin/x"));
    }
}
