//! Kernel settings that the image's recipe asks for. One that the kernel does not know, or does not
//! take, is told and passed over.

use std::fs;
use std::path::{Path, PathBuf};

/// One setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// As in sysctl.conf(5).
    pub key: &'a str,
    /// What is written.
    pub value: &'a str,
}

/// Reads lines `key = value` (sysctl.conf(5)); empty ones and comments are passed over.
pub fn parse(text: &str) -> impl Iterator<Item = Setting<'_>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| Setting {
            key: key.trim(),
            value: value.trim(),
        })
}

/// Where a setting lies below `top`; none for a name that leads elsewhere. The first separator is the
/// one between folders, the other one stands for a dot (sysctl.d(5)): `net.ipv4.conf.eth0/1.x` and
/// `net/ipv4/conf/eth0.1/x` are one.
pub fn place(top: &Path, key: &str) -> Option<PathBuf> {
    let first = key.find(['.', '/']).and_then(|at| key.get(at..at + 1));
    let path = if first == Some(".") {
        let swapped = |c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        key.chars().map(swapped).collect()
    } else {
        key.to_owned()
    };
    let inside = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    inside.then(|| top.join(path))
}

/// Applies the settings in `list`; returns what failed, in words. Without the file there is nothing
/// to do.
pub fn apply(list: &Path) -> Vec<String> {
    apply_below(Path::new("/proc/sys"), list)
}

fn apply_below(top: &Path, list: &Path) -> Vec<String> {
    let Ok(text) = fs::read_to_string(list) else {
        return Vec::new();
    };
    let failed = parse(&text).filter_map(|Setting { key, value }| {
        let told = |why: &str| Some(format!("sysctl {key} = {value}: {why}"));
        let Some(path) = place(top, key) else {
            return told("no name of a kernel setting");
        };
        if !path.is_file() {
            return told("this kernel has no such setting, or its module is not loaded");
        }
        fs::write(path, value)
            .err()
            .and_then(|error| told(&error.to_string()))
    });
    failed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_sysctl_conf_has_them() {
        let all: Vec<_> = parse("# x\n; y\n\nvm.swappiness=10\n net.a = 1 2  3 \nodd\n").collect();
        assert_eq!(all.len(), 2);
        let expected = Setting {
            key: "net.a",
            value: "1 2  3",
        };
        assert_eq!(all[1], expected);
    }

    #[test]
    fn no_name_leads_out_of_the_settings() {
        let top = Path::new("/p");
        assert_eq!(place(top, "a.b_c"), Some("/p/a/b_c".into()));
        assert_eq!(place(top, "a/b.1/c"), Some("/p/a/b.1/c".into()));
        assert_eq!(place(top, "a.b/1.c"), Some("/p/a/b.1/c".into()));
        for bad in ["", "..", "../x", "a/../b", "/etc/x", "a..b", "a/", "a.//.b"] {
            assert_eq!(place(top, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_unknown_is_told_and_the_rest_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let (top, list) = (dir.path().join("sys"), dir.path().join("list"));
        fs::create_dir_all(top.join("vm")).unwrap();
        fs::write(top.join("vm/swappiness"), "60").unwrap();
        fs::write(&list, "vm.none = 1\n../list = x\nvm.swappiness = 10\n").unwrap();
        let failed = apply_below(&top, &list);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(failed[0].starts_with("sysctl vm.none = 1: this kernel has no such"));
        assert_eq!(fs::read_to_string(top.join("vm/swappiness")).unwrap(), "10");
        assert!(apply_below(&top, &dir.path().join("no-list")).is_empty());
    }
}
