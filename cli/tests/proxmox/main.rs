//! `holdfast proxmox` from end to end against a fake of Proxmox's API. No real Proxmox was at hand.

mod fake;

use fake::{Fake, TOKEN};
use holdfast_core::cluster::ClusterId;
use holdfast_core::keys::PrivateKey;
use holdfast_core::names::Role;
use holdfast_core::seed::{Seed, SeedK3s, SeedLighthouse, SeedNetwork};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An operator with a fake host, an image and seeds.
struct Scene {
    fake: Fake,
    dir: tempfile::TempDir,
}

fn seed(name: Option<&str>) -> String {
    let key = PrivateKey::from_bytes([1; 32]);
    let seed = Seed {
        version: 1,
        cluster: "demo".parse().unwrap(),
        cluster_id: ClusterId([1; 16]),
        dual_stack: false,
        name: name.map(|n| n.parse().unwrap()),
        role: Role::Bare,
        issued: 1_700_000_000,
        grant: "g1".parse().unwrap(),
        token: key.clone(),
        roots: vec![key.public()],
        lighthouses: vec![SeedLighthouse {
            https: vec!["192.0.2.1:8443".into()],
            key: key.public(),
        }],
        network: SeedNetwork::default(),
        k3s: SeedK3s::default(),
        rejoin: false,
        board: None,
        wifi: None,
        install: None,
    };
    seed.to_toml().unwrap()
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let mut image = b"QFI\xfb".to_vec();
        image.resize(700_000, 7);
        write("node.qcow2", &image);
        write("n1.toml", seed(Some("n1")).as_bytes());
        write("shelf.toml", seed(None).as_bytes());
        let pi = seed(Some("n1")).replacen("issued", "board = \"rpi4\"\nissued", 1);
        write("pi.toml", pi.as_bytes());
        write("cloud.yaml", b"#cloud-config\nhostname: n1\n");
        Self {
            fake: Fake::start(),
            dir,
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .arg("proxmox")
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env(
                "HOLDFAST_PROXMOX_HOST",
                format!("127.0.0.1:{}", self.fake.port),
            )
            .env("HOLDFAST_PROXMOX_FINGERPRINT", &self.fake.fingerprint)
            .env("HOLDFAST_PROXMOX_TOKEN", TOKEN)
            .stdin(Stdio::null());
        command
    }

    fn ok(&self, line: &str) -> Value {
        let out = self
            .command(line)
            .args(["--output", "json"])
            .output()
            .unwrap();
        assert!(out.status.success(), "{line}: {}", text(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    fn fails(&self, line: &str) -> (i32, String) {
        let out = self.command(line).output().unwrap();
        assert!(!out.status.success(), "{line}: {}", text(&out));
        (out.status.code().unwrap(), text(&out))
    }

    /// Begins a command and waits until a task of this kind runs.
    fn begin(&self, line: &str, kind: &str) -> Child {
        let child = self
            .command(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !self.fake.state().runs(kind) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{kind} does not begin"
            );
            std::thread::yield_now();
        }
        child
    }

    fn drives(&self) -> Vec<String> {
        let state = self.fake.state();
        let isos = state.files.keys().filter(|v| v.contains(":iso/"));
        isos.cloned().collect()
    }

    fn empty(&self) -> bool {
        self.drives().is_empty() && self.fake.state().vms.is_empty()
    }
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&[out.stdout.clone(), out.stderr.clone()].concat()).into_owned()
}

const CREATE: &str = "create --image node.qcow2 --seed n1.toml --storage local-lvm";

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}

#[test]
fn a_machine_from_nothing_to_its_address_and_away() {
    let scene = Scene::new();
    let made = scene.ok(&format!(
        "{CREATE} --memory 4G --cores 4 --disk-size 31G --start --wait"
    ));
    assert_eq!((&made["vmid"], &made["name"]), (&100.into(), &"n1".into()));
    assert_eq!(made["addresses"][0], "192.0.2.100");
    {
        let state = scene.fake.state();
        let vm = &state.vms[&100];
        let get = |name: &str| vm.settings[name].as_str();
        assert!(vm.running && vm.lock.is_none());
        assert_eq!(
            get("efidisk0"),
            "local-lvm:1,efitype=4m,pre-enrolled-keys=0"
        );
        assert_eq!(get("scsi0"), "local-lvm:vm-100-disk-1,size=31G");
        assert_eq!(get("ide2"), "local:iso/holdfast-100-n1.iso,media=cdrom");
        assert_eq!(get("watchdog"), "model=i6300esb,action=reset");
        assert_eq!(
            (get("memory"), get("cores"), get("tags")),
            ("4096", "4", "holdfast")
        );
        let drive = &state.files["local:iso/holdfast-100-n1.iso"];
        assert!(holds(drive, seed(Some("n1")).as_bytes()));
        assert!(holds(drive, b"instance-id: ") && holds(drive, b"local-hostname: n1\n"));
    }
    // The image is there: it is not sent again.
    let second =
        scene.ok("create --image node.qcow2 --seed shelf.toml --name n2 --storage local-lvm");
    assert_eq!(second["image"], made["image"]);
    let gone = scene.ok("destroy n1 101 --yes");
    assert_eq!(gone.as_array().unwrap().len(), 2);
    assert!(scene.empty());
}

#[test]
fn a_seed_goes_into_the_serial_number() {
    let scene = Scene::new();
    let made = scene.ok(&format!("{CREATE} --smbios"));
    assert!(made["drive"].is_null() && scene.drives().is_empty());
    let smbios = scene.fake.state().vms[&100].settings["smbios1"].clone();
    let serial = smbios.split(",serial=").nth(1).unwrap();
    let unpacked = holdfast_core::seed::compact::unpack(serial)
        .unwrap()
        .unwrap();
    assert!(unpacked.contains("name = \"n1\""), "{}", *unpacked);
    assert!(smbios.len() <= 512);
    scene.ok("destroy n1 --yes");
    assert!(scene.empty());
}

#[test]
fn a_template_becomes_three_machines() {
    let scene = Scene::new();
    scene.ok("create --image node.qcow2 --template --name base");
    assert!(scene.fake.state().vms[&100].template);
    let clones =
        scene.ok("clone base --count 3 --name shelf --seed shelf.toml --disk-size 8G --start");
    let names: Vec<&str> = clones
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["shelf-01", "shelf-02", "shelf-03"]);
    assert_eq!(scene.drives().len(), 3);
    {
        let state = scene.fake.state();
        let mut contents: Vec<&Vec<u8>> = state
            .files
            .iter()
            .filter(|(v, _)| v.contains(":iso/"))
            .map(|(_, b)| b)
            .collect();
        contents.sort();
        contents.dedup();
        assert_eq!(contents.len(), 3, "each has an instance id of its own");
        for id in 101..104 {
            let vm = &state.vms[&id];
            assert!(vm.running && !vm.template);
            assert!(vm.settings["ide2"].contains(&format!("holdfast-{id}-shelf-")));
        }
    }
    // A seed with a name is for one node.
    let (code, said) = scene.fails("clone base --count 2 --name x --seed n1.toml");
    assert!(code == 2 && said.contains("--uses 2"), "{said}");
    let (code, said) = scene.fails("clone 101 --name x --seed n1.toml");
    assert!(code == 2 && said.contains("Clone a template"), "{said}");
    scene.ok("destroy shelf-01 shelf-02 shelf-03 base --yes");
    assert!(scene.empty());
}

#[test]
fn what_is_made_when_a_clone_fails_stays_and_is_told() {
    let scene = Scene::new();
    scene.ok("create --image node.qcow2 --template --name base");
    scene.fake.state().held.insert("qmclone");
    let child = scene.begin("clone base --count 2 --name s --seed shelf.toml", "qmclone");
    scene.fake.state().held.clear();
    let began = Instant::now();
    while !scene.fake.state().vms.contains_key(&102) {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    scene.fake.state().full = true;
    let out = child.wait_with_output().unwrap();
    let said = text(&out);
    assert!(
        out.status.code() == Some(1) && said.contains("no space left"),
        "{said}"
    );
    assert!(
        said.contains("made and stay") && said.contains("s-01"),
        "{said}"
    );
    assert_eq!(scene.drives(), ["local:iso/holdfast-101-s-01.iso"]);
}

#[test]
fn tokens_and_privileges_are_named() {
    let scene = Scene::new();
    let out = scene
        .command(CREATE)
        .env("HOLDFAST_PROXMOX_TOKEN", "op@pve!holdfast=wrong")
        .output()
        .unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(
        said.contains("op@pve!holdfast") && !said.contains("wrong"),
        "{said}"
    );
    let out = scene
        .command(CREATE)
        .env_remove("HOLDFAST_PROXMOX_TOKEN")
        .output()
        .unwrap();
    assert!(out.status.code() == Some(2) && text(&out).contains("pveum user token add"));

    for old in [true, false] {
        scene.fake.state().old_messages = old;
        for (privilege, path) in [
            ("VM.Allocate", "/vms/100"),
            ("VM.Config.HWType", "/vms/100"),
            ("Datastore.AllocateTemplate", "/storage/local"),
            ("SDN.Use", "/sdn/zones/localnetwork/vmbr0"),
        ] {
            scene.fake.state().lacking = [privilege].into();
            let (code, said) = scene.fails(CREATE);
            assert_eq!(code, 4, "{said}");
            assert!(
                said.contains(&format!("lacks the privilege {privilege} on {path}")),
                "{said}"
            );
            assert!(scene.empty(), "{privilege}: {:?}", scene.drives());
        }
    }
    // A file does as well as the environment.
    scene.fake.state().lacking.clear();
    std::fs::write(scene.dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let out = scene
        .command(&format!("{CREATE} --token-file token"))
        .env_remove("HOLDFAST_PROXMOX_TOKEN")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn certificates_are_pinned() {
    let scene = Scene::new();
    let out = scene
        .command(CREATE)
        .env("HOLDFAST_PROXMOX_FINGERPRINT", "00".repeat(32))
        .output()
        .unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(said.contains(&scene.fake.fingerprint), "{said}");
    // A self-signed one is in nobody's roots.
    let out = scene
        .command(CREATE)
        .env_remove("HOLDFAST_PROXMOX_FINGERPRINT")
        .output()
        .unwrap();
    let said = text(&out);
    assert!(
        out.status.code() == Some(3) && said.contains("--fingerprint"),
        "{said}"
    );
}

#[test]
fn a_failed_task_shows_its_log_and_leaves_nothing() {
    let scene = Scene::new();
    scene.fake.state().full = true;
    let (code, said) = scene.fails(CREATE);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("insufficient free space") && said.contains("| scsi0: importing disk"),
        "{said}"
    );
    assert!(said.contains("nothing was left behind"), "{said}");
    assert!(scene.empty());

    // What the token may not remove is named with the command that does.
    scene.fake.state().lacking = ["Datastore.Allocate"].into();
    let (_, said) = scene.fails(CREATE);
    assert!(
        said.contains("what is left") && said.contains("pvesm free local:iso/holdfast-100-n1.iso"),
        "{said}"
    );

    // No room for the image.
    let scene = Scene::new();
    scene.fake.state().local_free = 1000;
    let (code, said) = scene.fails(CREATE);
    assert!(code == 1 && said.contains("the image takes"), "{said}");
}

#[test]
fn ctrl_c_leaves_nothing_half_made() {
    for (line, kind) in [
        (CREATE, "qmcreate"),
        (CREATE, "imgcopy"),
        ("clone base --name n1 --seed n1.toml", "qmclone"),
    ] {
        let scene = Scene::new();
        scene.ok("create --image node.qcow2 --template --name base");
        scene.fake.state().files.clear();
        scene.fake.state().held.insert(kind);
        let child = scene.begin(line, kind);
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        let out = child.wait_with_output().unwrap();
        let said = text(&out);
        assert_eq!(out.status.code(), Some(1), "{said}");
        let clean = said.contains("nothing was left behind");
        assert!(said.contains("interrupted") && clean, "{said}");
        assert_eq!(scene.fake.state().vms.len(), 1, "{kind}");
        assert!(scene.drives().is_empty(), "{kind}");
    }
}

#[test]
fn a_task_that_cannot_be_broken_off_is_waited_for() {
    let scene = Scene::new();
    scene.fake.state().deaf = true;
    scene.fake.state().held.insert("qmcreate");
    let child = scene.begin(CREATE, "qmcreate");
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    // The machine is locked while Proxmox makes it, whether somebody watches or not.
    let began = Instant::now();
    while scene.fake.state().locked_seen == 0 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it is not to be removed"
        );
        std::thread::yield_now();
    }
    scene.fake.state().held.clear();
    scene.fake.state().finish_all();
    let out = child.wait_with_output().unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("interrupted") && said.contains("nothing was left behind"),
        "{said}"
    );
    assert!(scene.empty());
}

#[test]
fn a_client_that_dies_leaves_what_destroy_removes() {
    let scene = Scene::new();
    scene.fake.state().held.insert("qmcreate");
    let mut child = scene.begin(CREATE, "qmcreate");
    child.kill().unwrap();
    child.wait().unwrap();
    scene.fake.state().held.clear();
    scene.fake.state().finish_all();
    assert!(!scene.empty());
    let (code, said) = scene.fails(CREATE);
    assert!(
        code == 1 && said.contains("holdfast proxmox destroy 100"),
        "{said}"
    );
    scene.ok("destroy 100 --yes");
    assert!(scene.empty());
    scene.ok(CREATE);
}

#[test]
fn a_create_whose_answer_is_lost_is_undone() {
    let scene = Scene::new();
    scene.fake.state().cut_next_create = true;
    scene.fake.state().quick = true;
    let (code, said) = scene.fails(CREATE);
    assert!(
        code == 3 && said.contains("nothing was left behind"),
        "{said}"
    );
    assert!(scene.empty());

    // While it is locked nobody can tell whose it is: it is named.
    scene.fake.state().quick = false;
    scene.fake.state().cut_next_create = true;
    let (code, said) = scene.fails(CREATE);
    assert!(code == 3 && said.contains("perhaps VM 100"), "{said}");
}

#[test]
fn foreign_machines_are_left_alone() {
    let scene = Scene::new();
    scene.ok(CREATE);
    let clear = |scene: &Scene| {
        let mut state = scene.fake.state();
        let settings = &mut state.vms.get_mut(&100).unwrap().settings;
        settings.insert("tags".into(), "web".into());
        settings.insert(
            "description".into(),
            "holdfast-cidata: local:iso/debian.iso".into(),
        );
    };
    let (code, said) = scene.fails("destroy n1");
    assert!(code == 2 && said.contains("--yes"), "{said}");
    clear(&scene);
    scene
        .fake
        .state()
        .files
        .insert("local:iso/debian.iso".into(), vec![]);
    let (code, said) = scene.fails("destroy n1 --yes");
    assert!(code == 4 && said.contains("--force"), "{said}");
    scene.ok("destroy n1 --yes --force");
    assert!(scene.fake.state().vms.is_empty());
    assert!(scene.drives().contains(&"local:iso/debian.iso".to_owned()));
}

#[test]
fn what_cannot_work_is_said_before_anything_is_made() {
    let scene = Scene::new();
    scene.ok("create --image node.qcow2 --template --name base");
    for (line, code, words) in [
        (format!("{CREATE} --vmid 100"), 1, "VM 100 exists already"),
        (format!("{CREATE} --name base"), 1, "called base already"),
        (format!("{CREATE} --name a_b"), 2, "is no machine name"),
        (
            format!("{CREATE} --iso-storage local-lvm"),
            2,
            "does not take iso",
        ),
        (format!("{CREATE} --node other"), 2, "no node other"),
        (CREATE.replace("n1.toml", "cloud.yaml"), 2, "cloud-init"),
        (
            CREATE.replace("n1.toml", "pi.toml"),
            2,
            "for the board rpi4",
        ),
        (CREATE.replace("n1.toml", "gone.toml"), 1, "gone.toml"),
        (CREATE.replace("node.qcow2", "n1.toml"), 2, "no qcow2 image"),
        (CREATE.replace("--seed n1.toml", ""), 2, "--seed"),
        (
            "clone nothing --name x --seed n1.toml".into(),
            1,
            "no machine nothing",
        ),
    ] {
        let (found, said) = scene.fails(&line);
        assert!(
            found == code && said.contains(words),
            "{line}: {found} {said}"
        );
    }
    scene.fake.state().version = "8.2.4";
    let other = CREATE.replace("node.qcow2", "node2.qcow2");
    std::fs::write(scene.dir.path().join("node2.qcow2"), b"QFI\xfb2").unwrap();
    let (_, said) = scene.fails(&other);
    assert!(
        said.contains("8.2") && said.contains("qm importdisk"),
        "{said}"
    );
    scene.fake.state().version = "9.0.3";
    scene.fake.state().local_content = "iso";
    let (_, said) = scene.fails(&other);
    assert!(
        said.contains("import") && said.contains("qm importdisk"),
        "{said}"
    );
    assert!(scene.drives().is_empty());
    assert_eq!(scene.fake.state().vms.len(), 1);
}
