//! What lies in the root: packages, the few files that maintainer scripts would have made, and
//! what the recipe adds.

use holdfast_core::image::SERVICES_JSON;

use super::tree::{Data, Node, Tree};
use crate::{
    digest::Digest,
    error::{Error, IoContext, Result},
    modules::Module,
    pack::{Pack, Slice},
    recipe::{Content, Recipe},
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

/// A k3s binary and what stands for its content.
pub(crate) struct K3sBinary {
    pub(crate) path: std::path::PathBuf,
    pub(crate) sha256: Digest,
    pub(crate) len: u64,
}

/// Everything that is in the root.
pub(crate) struct Inputs<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) packages: &'a [Pack],
    pub(crate) kernel_release: &'a str,
    pub(crate) late_modules: &'a [Module],
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
    if let Some(k3s) = inputs.k3s {
        let slice = Slice {
            file: k3s.path.clone().into(),
            key: k3s.sha256.to_string().into(),
            offset: 0,
            len: k3s.len,
        };
        tree.program("usr/bin/k3s", Data::Slice(slice));
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
    tree.file(SERVICES_JSON.trim_start_matches('/'), services);
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

fn recipe_files(tree: &mut Tree, recipe: &Recipe) -> Result<()> {
    for dir in &recipe.dirs {
        tree.dir(dir, 0o755);
    }
    for file in &recipe.files {
        let bytes = match &file.content {
            Content::Text(text) => text.clone().into_bytes(),
            Content::Path(path) => std::fs::read(path).at("read", path)?,
        };
        let mode = if file.executable { 0o755 } else { 0o644 };
        tree.insert(
            &file.path,
            Node::File {
                mode,
                data: Data::Bytes(bytes.into()),
            },
        );
    }
    for (path, target) in &recipe.links {
        tree.link(path, target);
    }
    Ok(())
}
