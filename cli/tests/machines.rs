//! `holdfast vm` with a disk that holds nothing: QEMU starts, is found again, and ends.

mod common;

use common::Operator;
use std::path::Path;

fn qemu_is_here() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let qemu = std::env::split_paths(&paths).any(|d| d.join("qemu-system-x86_64").is_file());
    qemu && Path::new("/usr/share/OVMF").is_dir()
}

#[test]
fn a_machine_is_run_listed_stopped_and_removed() {
    let me = Operator::new();
    let run = "vm run --image disk.img --name m1 --no-kvm --memory 256 --cpus 1 --detach";
    let (code, said) = me.fails(run);
    assert!(
        code == 2 && said.contains("holdfast build"),
        "{code} {said}"
    );
    if !qemu_is_here() {
        eprintln!("QEMU or its firmware is not installed: the rest was not run");
        return;
    }
    let disk = me.dir.path().join("disk.img");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    me.ok(run);
    let list = me.json("vm list");
    assert_eq!(
        (&list[0]["name"], &list[0]["on"]),
        (&"m1".into(), &true.into()),
        "{list}"
    );
    let (code, said) = me.fails(run);
    assert!(code == 2 && said.contains("is on"), "{code} {said}");
    assert_eq!(me.fails("vm remove m1").0, 2);
    me.ok("vm stop m1 --cut");
    assert_eq!(me.json("vm list")[0]["on"], false);

    // An overlay over other bytes would be a broken disk.
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    let (code, said) = me.fails(run);
    assert!(code == 2 && said.contains("--fresh"), "{code} {said}");
    me.ok(&format!("{run} --fresh"));
    me.ok("vm stop m1 --cut");
    me.ok("vm remove m1");
    assert_eq!(me.json("vm list"), serde_json::json!([]));
    assert_eq!(me.fails("vm stop m1").0, 1);
}
