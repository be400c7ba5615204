//! A node of recipe `storage`: iscsid runs under a name of the node's own, the modules are there,
//! its tools start. With HOLDFAST_ISCSI_TARGET=ADDRESS:PORT,IQN (as the machine sees it) the first disk
//! of that target is attached, too: `tgtd` on the host will do.

use anyhow::{Result, ensure};
use holdfast_qemu::free_tcp_port;
use holdfast_tests::{Lab, Node, Story, until_some};
use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

/// What the node tells, on ports from 7001 on.
const MODULES: usize = 0;
const NAME: usize = 1;
const SESSIONS: usize = 2;
const CIPHERS: usize = 3;
const NFS: usize = 4;
const DISCOVER: usize = 5;
const LOGIN: usize = 6;
const DISKS: usize = 7;
const SOCKETS: usize = 8;
const RECORD: usize = 9;

fn recipe(portal: &str, iqn: &str) -> String {
    let file = |path: &str| format!("\"-U\", \"LISTEN\", \"OPEN:{path},rdonly\"");
    let run = |command: &str| format!("\"LISTEN\", \"EXEC:'{command}',stderr\"");
    let told = [
        file("/proc/modules"),
        file("/etc/iscsi/initiatorname.iscsi"),
        run("/usr/sbin/iscsiadm -m session"),
        run("/usr/sbin/cryptsetup benchmark -c aes-xts-plain64"),
        run("/usr/sbin/mount.nfs4 -V"),
        run(&format!(
            "/usr/sbin/iscsiadm -m discovery -t sendtargets -p {portal}"
        )),
        run(&format!(
            "/usr/sbin/iscsiadm -m node -T {iqn} -p {portal} --login"
        )),
        run("/usr/bin/lsblk -S"),
        file("/proc/net/unix"),
        run(&format!(
            "/usr/sbin/iscsiadm -m node -o new -T {iqn} -p {portal}"
        )),
    ];
    let mut text =
        "description = \"For a test: storage, telling what is there\"\nextends = \"storage\"\n\
        packages = [\"socat\"]\n[k3s]\nversion = \"none\"\nstand_in = true\n"
            .to_owned();
    for (n, told) in told.iter().enumerate() {
        let listen = format!("TCP-LISTEN:{},fork,reuseaddr", 7001 + n);
        let exec = told.replace("LISTEN", &listen);
        text += &format!("[[service]]\nname = \"told-{n}\"\nexec = [\"/usr/bin/socat\", {exec}]\n");
    }
    text
}

fn read_all(port: u16) -> Result<String> {
    let mut text = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(90)))?;
    stream.read_to_string(&mut text)?;
    ensure!(!text.is_empty(), "nothing comes");
    Ok(text)
}

#[test]
fn a_storage_node_has_what_drivers_ask_for() -> Story {
    let lab = Lab::new("storage_node")?;
    let target = std::env::var("HOLDFAST_ISCSI_TARGET").ok();
    let file = lab.dir().join("told.toml");
    let (portal, iqn) = target
        .as_deref()
        .and_then(|t| t.split_once(','))
        .unwrap_or(("127.0.0.1", "none"));
    std::fs::write(&file, recipe(portal, iqn))?;
    let file = file.to_string_lossy().into_owned();
    // A bare node starts no k3s: any program will do.
    let image = lab.build_with(&file, "1.0.0", &["--k3s", "stand-in=/usr/bin/true"])?;
    let told = lab
        .holdfast
        .json(&["recipe", "check", &file, "--board", "proxmox"])?;
    ensure!(
        told[0]["unchecked"].as_array() == Some(&Vec::new()),
        "{told}"
    );

    let seed = lab.seed("n1", "bare", &[])?;
    let ports: Vec<u16> = (0..=RECORD)
        .map(|_| Ok(free_tcp_port()?))
        .collect::<Result<_>>()?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| {
        (7001..)
            .zip(&ports)
            .fold(spec, |spec, (guest, host)| spec.forward_tcp(*host, guest))
    })?;
    node.boot()?;
    let ask = |what: usize, wanted: &str| {
        until_some(wanted, Duration::from_secs(120), || {
            match read_all(ports[what]) {
                Ok(text) if text.contains(wanted) => Ok(text),
                other => Err(format!("{other:?}")),
            }
        })
    };
    let modules = ask(MODULES, "iscsi_tcp ")?;
    for module in ["dm_crypt ", "nfsv4 ", "nbd ", "libiscsi "] {
        ensure!(modules.contains(module), "no {module}in {modules}");
    }
    let name = ask(NAME, "InitiatorName=iqn.1993-08.org.debian:01:")?;
    ensure!(name.trim().len() == 40 + 32, "{name:?}");
    ask(SESSIONS, "No active sessions")?;
    ask(CIPHERS, "aes-xts")?;
    ask(NFS, "nfs-utils")?;
    // The address at which iscsiadm finds iscsid.
    ask(SOCKETS, "@ISCSIADM_ABSTRACT_NAMESPACE")?;
    let log = lab.holdfast.run(["logs", "n1"])?;
    ensure!(!log.contains("iscsid ended"), "{log}");
    if target.is_some() {
        ask(DISCOVER, iqn)?;
        // A target behind a translated address tells another one of itself than it is reached at.
        ask(RECORD, "added")?;
        ask(LOGIN, "successful")?;
        println!("{}", ask(DISKS, "VIRTUAL-DISK")?);
    }
    Ok(())
}
