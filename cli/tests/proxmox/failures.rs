//! What fails, is interrupted, or loses its connection leaves nothing half made.

use crate::scene::{CREATE, Scene, interrupt, text};

#[test]
fn what_is_made_when_a_clone_fails_stays_and_is_told() {
    let scene = Scene::new();
    scene.ok("create --image node.qcow2 --template --name base");
    scene.fake.state().held.insert("qmclone");
    let child = scene.begin("clone base --count 2 --name s --seed shelf.toml", "qmclone");
    scene.fake.state().held.clear();
    scene.until("VM 102 is begun", |state| state.vms.contains_key(&102));
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
        interrupt(&child);
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
    interrupt(&child);
    // The machine is locked while Proxmox makes it, whether somebody watches or not.
    scene.until("it is to be removed", |state| state.locked_seen > 0);
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
