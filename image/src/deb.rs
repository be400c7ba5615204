//! Unpacks a .deb (deb(5)) without running anything in it.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use tar::EntryType;

use crate::{
    cache::Cache,
    digest::Inputs,
    error::{Error, IoContext, Result},
    lock::Locked,
    pack::{Pack, Writer},
};

/// What no appliance reads.
const LEFT_OUT: [&str; 7] = [
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/lintian/",
    "usr/share/doc-base/",
    "var/",
];
/// Raised when what is kept of a package changes.
const STAGE: &str = "deb/1";

/// A locked package, unpacked in the cache, and whether it was there already.
///
/// # Errors
/// As [`unpack`].
pub(crate) fn unpacked(cache: &Cache, package: &Locked) -> Result<(Pack, bool)> {
    let key = Inputs::of(STAGE).with(package.sha256.0).key();
    let object = cache.object(&package.sha256);
    let (dir, cached) = cache.stage("deb", &key, |to| unpack(&object, &package.name, to))?;
    Ok((Pack::open(&dir)?, cached))
}

/// Unpacks `deb` into a pack at `to`.
///
/// # Errors
/// When it is no Debian package, or one of its paths leads out of the root.
fn unpack(deb: &Path, name: &str, to: &Path) -> Result<()> {
    let bad = |reason: String| Error::Package {
        package: name.to_owned(),
        reason,
    };
    let file = File::open(deb).at("open", deb)?;
    let mut members = ar::Archive::new(BufReader::with_capacity(1 << 20, file));
    let mut first = true;
    while let Some(member) = members.next_entry() {
        let member = member.map_err(|e| bad(format!("not a .deb: {e}")))?;
        let id = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let id = id.trim_end_matches('/').to_owned();
        if std::mem::take(&mut first) && id != "debian-binary" {
            return Err(bad(
                "not a .deb: it does not begin with debian-binary".into()
            ));
        }
        let Some(packing) = id.strip_prefix("data.tar") else {
            continue;
        };
        let data: Box<dyn Read> = match packing {
            "" => Box::new(member),
            ".xz" => Box::new(liblzma::read::XzDecoder::new_multi_decoder(member)),
            ".gz" => Box::new(flate2::read::MultiGzDecoder::new(member)),
            ".zst" => Box::new(zstd::Decoder::new(member).map_err(|e| bad(e.to_string()))?),
            other => {
                return Err(bad(format!(
                    "its data is packed as {other:?}, which is not known"
                )));
            }
        };
        return unpack_data(data, name, to);
    }
    Err(bad("not a .deb: it holds no data".into()))
}

fn unpack_data(data: impl Read, name: &str, to: &Path) -> Result<()> {
    let bad = |reason: String| Error::Package {
        package: name.to_owned(),
        reason,
    };
    let broken = |e: std::io::Error| bad(format!("its data is damaged: {e}"));
    let mut out = Writer::create(to)?;
    let mut archive = tar::Archive::new(data);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let raw = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| bad("holds a file name that is not UTF-8".into()))?;
        let path =
            clean(&raw).ok_or_else(|| bad(format!("its path {raw:?} leads out of the root")))?;
        if path.is_empty()
            || LEFT_OUT
                .iter()
                .any(|p| path.starts_with(p) || path == p[..p.len() - 1])
        {
            continue;
        }
        // Nobody on the appliance is not root: set-user-id bits could only do harm.
        let mode = entry.header().mode().map_err(broken)? & 0o777;
        let target = entry
            .link_name_bytes()
            .map(|t| String::from_utf8(t.into_owned()))
            .transpose()
            .map_err(|_| bad("holds a link that is not UTF-8".into()))?;
        match (entry.header().entry_type(), target) {
            (EntryType::Directory, _) => out.dir(path, mode),
            (EntryType::Regular | EntryType::Continuous, _) => out.file(path, mode, &mut entry)?,
            (EntryType::Symlink, Some(target)) => out.link(path, target),
            (EntryType::Link, Some(target)) => {
                let to = clean(&target)
                    .ok_or_else(|| bad(format!("its link {target:?} leads out of the root")))?;
                if !out.hard_link(path, &to) {
                    return Err(bad(format!(
                        "its hard link to {to:?} comes before that file"
                    )));
                }
            }
            (kind, _) => {
                return Err(bad(format!(
                    "{path:?} is a {kind:?}, which no package of an appliance needs"
                )));
            }
        }
    }
    out.finish()
}

/// `./usr/bin/x` as `usr/bin/x`, in the merged layout; `None` when it leads out of the root.
fn clean(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    if parts.contains(&"..") || path.contains('\0') {
        return None;
    }
    // /bin, /sbin, /lib and /lib64 are links into /usr (the Debian merge of 2023).
    let merged = match parts.first() {
        Some(&("bin" | "sbin" | "lib" | "lib64")) => "usr/",
        _ => "",
    };
    Some(merged.to_owned() + &parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{Kind, Pack};

    /// A .deb with these tar entries: path, kind, content or target.
    fn deb(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut data = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            let body = if kind.is_file() {
                content.as_bytes()
            } else {
                b""
            };
            if !kind.is_file() && !kind.is_dir() {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_size(body.len() as u64);
            header.set_cksum();
            data.append(&header, body).unwrap();
        }
        let packed = zstd::encode_all(&data.into_inner().unwrap()[..], 1).unwrap();
        let mut out = ar::Builder::new(Vec::new());
        for (name, body) in [
            ("debian-binary", &b"2.0\n"[..]),
            ("control.tar", b""),
            ("data.tar.zst", &packed),
        ] {
            out.append(&ar::Header::new(name.into(), body.len() as u64), body)
                .unwrap();
        }
        out.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Result<Pack> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.deb");
        std::fs::write(&file, bytes).unwrap();
        unpack(&file, "a", &dir.path().join("pack"))?;
        let pack = Pack::open(&dir.path().join("pack"))?;
        // Read while the folder is still there.
        if let Some(slice) = pack.find("usr/lib/x") {
            assert_eq!(slice.read().unwrap(), b"12345");
        }
        Ok(pack)
    }

    #[test]
    fn files_are_merged_into_usr_and_documentation_is_left_out() {
        let pack = unpacked(&deb(&[
            ("./", EntryType::Directory, ""),
            ("./lib/x", EntryType::Regular, "12345"),
            ("./usr/share/doc/a/copyright", EntryType::Regular, "no"),
            ("./usr/bin/y", EntryType::Link, "./lib/x"),
            ("./usr/bin/z", EntryType::Symlink, "../lib/x"),
        ]))
        .unwrap();
        let paths: Vec<&str> = pack.entries.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["usr/lib/x", "usr/bin/y", "usr/bin/z"]);
        assert!(matches!(
            pack.entries[0].kind,
            Kind::File {
                mode: 0o755,
                len: 5,
                ..
            }
        ));
    }

    #[test]
    fn what_leads_out_of_the_root_is_refused() {
        for path in ["../x", "./usr/../../x", "/etc/passwd"] {
            let e = unpacked(&deb(&[(path, EntryType::Regular, "1")]))
                .err()
                .unwrap();
            assert!(e.to_string().contains("leads out"), "{e}");
        }
        let e = unpacked(&deb(&[("x", EntryType::Link, "../../etc/shadow")]))
            .err()
            .unwrap();
        assert!(e.to_string().contains("leads out"), "{e}");
        assert!(unpacked(&deb(&[("dev/sda", EntryType::Block, "x")])).is_err());
        assert!(unpacked(b"hello").is_err());
        let whole = deb(&[("x", EntryType::Regular, "12345678")]);
        assert!(unpacked(&whole[..whole.len() - 20]).is_err());
    }
}
