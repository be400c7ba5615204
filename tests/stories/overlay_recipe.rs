//! A recipe outside of the repository adds a package, files, a module, kernel settings, a kernel
//! argument, services, a manifest and a container image to a shipped one: `recipe check` finds
//! nothing, the node does all of it, and says what its kernel did not know. A second one that
//! contradicts the shipped one is told so.

use anyhow::{Context as _, Result, ensure};
use holdfast_qemu::free_tcp_port;
use holdfast_tests::{Lab, Node, Story, until, until_some};
use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is told on which port of the node.
const TOLD: [(&str, u16, &str); 6] = [
    ("site", 7001, "/usr/share/mine/site"),
    ("swappiness", 7002, "/proc/sys/vm/swappiness"),
    ("cmdline", 7003, "/proc/cmdline"),
    ("modules", 7004, "/proc/modules"),
    ("id", 7005, "/var/lib/mine/id"),
    (
        "conntrack",
        7006,
        "/proc/sys/net/netfilter/nf_conntrack_acct",
    ),
];

const IMAGE: &str = "holdfast.test/own:1";

/// `./my/edge.toml` in `dir`, with what belongs to it.
fn write_recipe(dir: &Path) -> Result<std::path::PathBuf> {
    let my = dir.join("my");
    std::fs::create_dir_all(my.join("manifests"))?;
    std::fs::write(my.join("site.txt"), "attic\n")?;
    std::fs::write(
        my.join("manifests/marker.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-the-image, namespace: default}\ndata: {kept: 'yes'}\n",
    )?;
    let sha256 = write_image(&my)?;
    let mut text = format!(
        r#"description = "For a test: a little of everything"
extends = "kube"
packages = ["socat"]
modules = ["dm_crypt"]
kernel_args = ["mine.marker=17"]

[sysctl]
vm.swappiness = 7
net.netfilter.nf_conntrack_acct = true
kernel.no_such_setting = 1

[[file]]
path = "/usr/share/mine/site"
source = "site.txt"

[[file]]
path = "/var/lib/mine/id"
content = "node {{machine-id}}\n"

[k3s.config]
kubelet-arg = ["max-pods=37"]

[[k3s.manifest]]
name = "marker.yaml"
source = "manifests/marker.yaml"

[[k3s.image]]
name = "own.tar"
source = "own.tar"
sha256 = "{sha256}"
"#
    );
    for (name, port, file) in TOLD {
        text += &format!(
            "\n[[service]]\nname = \"{name}\"\nexec = [\"/usr/bin/socat\", \"-U\", \"TCP-LISTEN:{port},fork,reuseaddr\", \"OPEN:{file},rdonly\"]\n"
        );
    }
    let file = my.join("edge.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// A container image of one small layer as `own.tar` (Docker's image specification, v1.2: "Combined
/// Image JSON"), and its digest.
fn write_image(my: &Path) -> Result<String> {
    let tar = |to: &str, names: &[&str]| -> Result<()> {
        let done = Command::new("tar")
            .current_dir(my)
            .args(["--owner=0", "--group=0", "-cf", to])
            .args(names)
            .status()?;
        ensure!(done.success(), "tar {to}");
        Ok(())
    };
    let digest = |of: &str| -> Result<String> {
        let out = Command::new("sha256sum").current_dir(my).arg(of).output()?;
        let text = String::from_utf8(out.stdout)?;
        let first = text.split_whitespace().next().context("no digest")?;
        Ok(first.to_owned())
    };
    tar("layer.tar", &["site.txt"])?;
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/none"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        digest("layer.tar")?
    );
    std::fs::write(my.join("config.json"), config)?;
    std::fs::write(
        my.join("manifest.json"),
        format!(r#"[{{"Config":"config.json","RepoTags":["{IMAGE}"],"Layers":["layer.tar"]}}]"#),
    )?;
    tar("own.tar", &["manifest.json", "config.json", "layer.tar"])?;
    digest("own.tar")
}

/// What the node tells whoever connects.
fn read_all(port: u16) -> Result<String> {
    let mut text = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.read_to_string(&mut text)?;
    ensure!(!text.is_empty(), "nothing comes from port {port}");
    Ok(text)
}

#[test]
fn everything_that_an_overlay_adds_is_there() -> Story {
    let lab = Lab::new("overlay_recipe")?;
    let kube = std::env::var("HOLDFAST_KUBE").context("HOLDFAST_KUBE: see scripts/test")?;
    let recipe = write_recipe(lab.dir())?;
    let recipe = recipe.to_string_lossy().into_owned();
    let stand_in = format!("stand-in={kube}");
    let image = lab.build_with(&recipe, "1.0.0", &["--k3s", &stand_in])?;

    let check = ["recipe", "check", &recipe, "--board", "proxmox"];
    let told = lab.holdfast.json(&check)?;
    let none = Some(&Vec::new());
    ensure!(told[0]["conflicts"].as_array() == none, "{told}");
    ensure!(told[0]["unchecked"].as_array() == none, "{told}");
    let second = lab.dir().join("my/odd.toml");
    std::fs::write(
        &second,
        "description = \"odd\"\nextends = \"edge\"\nkernel_args = [\"panic=0\"]\nmodules = [\"dm_crpyt\"]\n",
    )?;
    let odd = second.to_string_lossy().into_owned();
    let refused = lab
        .holdfast
        .try_run(["recipe", "check", &odd, "--board", "proxmox"])?;
    ensure!(refused.code == 1, "{refused:?}");
    ensure!(
        refused.stdout.contains("panic=10 and panic=0"),
        "{refused:?}"
    );

    let seed = lab.seed("s1", "server", &[])?;
    let ports: Vec<(u16, u16)> = TOLD
        .iter()
        .map(|(_, guest, _)| Ok((free_tcp_port()?, *guest)))
        .collect::<Result<_>>()?;
    let mut node = Node::with(&lab, "s1", &image, Some(&seed), |spec| {
        let spec = spec.memory_mib(3072).disk_bytes(12 << 30);
        ports
            .iter()
            .fold(spec, |spec, (host, guest)| spec.forward_tcp(*host, *guest))
    })?;
    node.boot()?;
    let ask = |what: &str| -> Result<String> {
        let at = TOLD.iter().position(|(name, ..)| *name == what);
        let (host, _) = ports[at.context("not told")?];
        until_some(what, Duration::from_secs(120), || {
            read_all(host).map_err(|e| format!("{e:#}"))
        })
    };
    ensure!(ask("site")? == "attic\n");
    ensure!(ask("swappiness")?.trim() == "7");
    // A setting of a module that only the recipe's list loads.
    ensure!(ask("conntrack")?.trim() == "1");
    ensure!(
        ask("cmdline")?.contains(" mine.marker=17 "),
        "{}",
        ask("cmdline")?
    );
    ensure!(ask("modules")?.contains("dm_crypt "), "{}", ask("modules")?);
    let id = ask("id")?;
    let hex = id.trim().strip_prefix("node ").unwrap_or_default();
    ensure!(
        hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id:?}"
    );
    let status = lab.holdfast.json(&["status", "s1"])?;
    ensure!(
        status.to_string().contains("kernel.no_such_setting"),
        "no note about the unknown setting: {status}"
    );

    node.wait_ready()?;
    let kubectl = |args: &[&str]| {
        let run = ["kubectl", "--kubectl", &kube, "--"];
        lab.holdfast.run(run.iter().chain(args).copied())
    };
    until("the manifest is applied", Duration::from_secs(180), || {
        kubectl(&[
            "get",
            "configmap",
            "from-the-image",
            "-o",
            "jsonpath={.data.kept}",
        ])
        .is_ok_and(|kept| kept == "yes")
    })?;
    let pods = kubectl(&[
        "get",
        "node",
        "s1",
        "-o",
        "jsonpath={.status.capacity.pods}",
    ])?;
    ensure!(pods == "37", "{pods:?}");
    until("the image is imported", Duration::from_secs(180), || {
        kubectl(&[
            "get",
            "node",
            "s1",
            "-o",
            "jsonpath={.status.images[*].names}",
        ])
        .is_ok_and(|names| names.contains(IMAGE))
    })?;

    // What a node made for itself is kept.
    node.reboot()?;
    ensure!(ask("id")? == id);
    Ok(())
}
