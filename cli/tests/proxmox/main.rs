//! `holdfast proxmox` from end to end against a fake of Proxmox's API. No real Proxmox was at hand.

mod failures;
mod fake;
mod scene;

use fake::TOKEN;
use scene::{CREATE, Scene, holds, seed, text};

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
            4,
            "for the board rpi4",
        ),
        (CREATE.replace("n1.toml", "gone.toml"), 2, "gone.toml"),
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
