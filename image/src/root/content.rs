//! What lies in the root: packages, the few files that maintainer scripts would have made, and
//! what the recipe adds.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use holdfast_core::image::{
    K3S_CONFIG, K3S_IMAGES, K3S_MANIFESTS, PROVIDED_JSON, Provided, ProvidedKind, SERVICES_JSON,
    SYSCTL_CONF,
};

use super::tree::{Data, Node, Tree};
use crate::{
    build::firmware::Taken,
    digest::{self, Digest},
    error::{Error, IoContext, Result},
    modules::Module,
    pack::{Pack, Slice},
    recipe::Recipe,
};

/// Mount points and folders that stay although they are empty.
const EMPTY_DIRS: [&str; 10] = [
    "proc",
    "sys",
    "dev",
    "run",
    "var",
    "tmp",
    "mnt",
    "root",
    "etc/rancher",
    "usr/local",
];
/// Where init looks for the modules that it loads once the root is mounted.
const MODULE_LIST: &str = "usr/lib/holdfast/modules.list";

/// Where a k3s finds what it would otherwise unpack on its first start.
const K3S_PREPARED: &str = "usr/lib/k3s/data";

/// A k3s binary and what stands for its content.
pub(crate) struct K3sBinary {
    pub(crate) path: PathBuf,
    pub(crate) sha256: Digest,
    pub(crate) len: u64,
    /// What it would unpack on its first start, as a folder.
    pub(crate) prepared: Option<PathBuf>,
    /// Container images for it to import: file name, file, digest, length.
    pub(crate) images: Vec<(String, PathBuf, Digest, u64)>,
}

/// A file of the host whose name says nothing about its content.
fn host_file(path: &Path) -> Result<Data> {
    let len = std::fs::metadata(path).at("read", path)?.len();
    Ok(slice(path, &digest::of_file(path)?, len))
}

fn slice(path: &Path, digest: &Digest, len: u64) -> Data {
    Data::Slice(Slice {
        file: path.to_owned().into(),
        key: digest.to_string().into(),
        offset: 0,
        len,
    })
}

/// Adds the folder `from` of the host at `to`; modes become 755 and 644.
fn add_folder(tree: &mut Tree, from: &Path, to: &str) -> Result<()> {
    for entry in std::fs::read_dir(from).at("read", from)? {
        let entry = entry.at("read", from)?;
        let (path, kind) = (entry.path(), entry.file_type().at("read", from)?);
        let name = entry.file_name().into_string().map_err(|name| {
            Error::build(
                from.display().to_string(),
                format!("holds a name that is not UTF-8: {name:?}"),
            )
        })?;
        let to = format!("{to}/{name}");
        if kind.is_dir() {
            tree.dir(&to, 0o755);
            add_folder(tree, &path, &to)?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).at("read", &path)?;
            tree.link(&to, &target.to_string_lossy());
        } else {
            let mode = entry.metadata().at("read", &path)?.permissions().mode();
            let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
            tree.insert(
                &to,
                Node::File {
                    mode,
                    data: host_file(&path)?,
                },
            );
        }
    }
    Ok(())
}

/// Everything that is in the root.
pub(crate) struct Inputs<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) packages: &'a [Pack],
    pub(crate) kernel_release: &'a str,
    pub(crate) late_modules: &'a [Module],
    pub(crate) firmware: &'a [Taken],
    pub(crate) k3s: Option<&'a K3sBinary>,
}

/// The root of a recipe.
///
/// # Errors
/// When a recipe's file cannot be read or parts contradict each other.
pub(crate) fn tree(inputs: &Inputs<'_>) -> Result<Tree> {
    let mut tree = Tree::default();
    for pack in inputs.packages {
        tree.add_pack(pack);
    }
    certificates(&mut tree)?;
    for pattern in &inputs.recipe.remove {
        tree.remove(pattern);
    }
    tree.remove_empty_dirs(&[]);
    skeleton(&mut tree, inputs.recipe)?;
    modules(&mut tree, inputs.kernel_release, inputs.late_modules);
    for file in inputs.firmware {
        let data = Data::Slice(file.slice.clone());
        tree.insert(&file.path, Node::File { mode: 0o644, data });
    }
    if let Some(k3s) = inputs.k3s {
        tree.program("usr/bin/k3s", slice(&k3s.path, &k3s.sha256, k3s.len));
        if let Some(prepared) = &k3s.prepared {
            add_folder(&mut tree, prepared, K3S_PREPARED)?;
        }
        for (name, path, sha256, len) in &k3s.images {
            let to = format!("{}/{name}", in_root(K3S_IMAGES));
            let data = slice(path, sha256, *len);
            tree.insert(&to, Node::File { mode: 0o644, data });
        }
    }
    recipe_files(&mut tree, inputs.recipe)?;
    tree.check()?;
    Ok(tree)
}

fn skeleton(tree: &mut Tree, recipe: &Recipe) -> Result<()> {
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        tree.link(link, target);
        tree.dir(target, 0o755);
    }
    for dir in EMPTY_DIRS {
        tree.dir(dir, if dir == "root" { 0o700 } else { 0o755 });
    }
    tree.file("etc/passwd", "root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    tree.file("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    tree.file(
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    );
    // A file is bound over it, so that it is there even before /var is.
    tree.file("etc/machine-id", "");
    for name in ["resolv.conf", "hostname", "hosts"] {
        tree.link(&format!("etc/{name}"), &format!("../run/holdfast/{name}"));
    }
    tree.link("etc/mtab", "../proc/self/mounts");
    tree.file(
        "usr/lib/os-release",
        "NAME=Holdfast\nID=holdfast\nID_LIKE=debian\nPRETTY_NAME=\"Holdfast\"\n",
    );
    tree.link("etc/os-release", "../usr/lib/os-release");
    let services =
        serde_json::to_vec_pretty(&recipe.services).map_err(|e| Error::build("services", e))?;
    tree.file(in_root(SERVICES_JSON), services);
    Ok(())
}

/// The bundle that `update-ca-certificates` would make: all of Mozilla's roots, one after another.
fn certificates(tree: &mut Tree) -> Result<()> {
    const FROM: &str = "usr/share/ca-certificates/";
    let mut bundle = Vec::new();
    for (path, node) in tree.nodes.range(FROM.to_owned()..) {
        if !path.starts_with(FROM) {
            break;
        }
        if let Node::File { data, .. } = node {
            bundle.extend(data.read()?);
            if bundle.last() != Some(&b'\n') {
                bundle.push(b'\n');
            }
        }
    }
    if !bundle.is_empty() {
        tree.remove(FROM.trim_end_matches('/'));
        tree.file("etc/ssl/certs/ca-certificates.crt", bundle);
    }
    Ok(())
}

fn modules(tree: &mut Tree, release: &str, late: &[Module]) {
    let mut list = String::new();
    let dir = format!("usr/lib/modules/{release}/");
    for module in late {
        list += &module.line(&dir);
        tree.file(&format!("{dir}{}", module.path), module.bytes.clone());
    }
    tree.file(MODULE_LIST, list);
}

/// A path of the node as one in the tree.
fn in_root(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Whether an image cannot hold this path: init makes it on the node.
pub(crate) fn on_node(path: &str) -> bool {
    path.starts_with("var/") || path.starts_with("run/")
}

fn recipe_files(tree: &mut Tree, recipe: &Recipe) -> Result<()> {
    let mut provided = Vec::new();
    let mut provide = |path: &str, what| {
        let path = format!("/{path}");
        provided.push(Provided { path, what });
    };
    for dir in &recipe.dirs {
        match on_node(dir) {
            true => provide(dir, ProvidedKind::Dir),
            false => tree.dir(dir, 0o755),
        }
    }
    for file in &recipe.files {
        let bytes = file.content.read()?;
        if on_node(&file.path) {
            let content = String::from_utf8(bytes).map_err(|_| {
                let e = Error::build(
                    format!("/{}", file.path),
                    "must be text: each node makes it",
                );
                recipe.origins.blame("path", &file.path, e)
            })?;
            let executable = file.executable;
            provide(
                &file.path,
                ProvidedKind::File {
                    content,
                    executable,
                },
            );
            continue;
        }
        let mode = if file.executable { 0o755 } else { 0o644 };
        tree.insert(
            &file.path,
            Node::File {
                mode,
                data: Data::Bytes(bytes.into()),
            },
        );
    }
    for link in &recipe.links {
        let target = link.target.clone();
        match on_node(&link.path) {
            true => provide(&link.path, ProvidedKind::Link { target }),
            false => tree.link(&link.path, &target),
        }
    }
    if !provided.is_empty() {
        let json = serde_json::to_vec_pretty(&provided)
            .map_err(|e| Error::build("what each node makes", e))?;
        tree.file(in_root(PROVIDED_JSON), json);
    }
    if !recipe.sysctl.is_empty() {
        let lines = recipe.sysctl.iter().map(|(k, v)| format!("{k} = {v}\n"));
        tree.file(in_root(SYSCTL_CONF), lines.collect::<String>());
    }
    if let Some(k3s) = &recipe.k3s {
        for manifest in &k3s.manifests {
            let to = format!("{}/{}", in_root(K3S_MANIFESTS), manifest.name);
            tree.file(&to, manifest.content.read()?);
        }
        if let Some(yaml) = k3s.config_yaml() {
            tree.file(in_root(K3S_CONFIG), yaml);
        }
    }
    Ok(())
}
