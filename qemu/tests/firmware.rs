//! A machine without anything to boot: firmware, console, control socket, power.

use std::time::Duration;

use holdfast_qemu::{Accel, Card, Error, Machine, MachineSpec, Rtc};

/// OVMF takes about 4 s under emulation on an idle machine.
const FIRMWARE: Duration = Duration::from_secs(120);

#[test]
fn power_can_be_cut_and_comes_back() {
    let seed = tempfile::NamedTempFile::new().unwrap();
    let spec = MachineSpec::new("firmware-only")
        .accel(Accel::Tcg)
        .memory_mib(256)
        .cpus(1)
        .disk_bytes(1 << 20);
    let mut machine = Machine::start(spec.seed(seed.path()).rtc(Rtc::Epoch)).unwrap();
    machine.wait_for("BdsDxe", FIRMWARE).unwrap();
    assert_eq!(machine.status().unwrap(), "running");
    machine.set_cable(Card::User, false).unwrap();
    machine.pause().unwrap();
    assert_eq!(machine.status().unwrap(), "paused");

    machine.power_cut().unwrap();
    assert!(!machine.is_on());
    assert!(matches!(machine.status(), Err(Error::Off(_))));

    machine.power_on().unwrap();
    machine.wait_for("BdsDxe", FIRMWARE).unwrap();
    machine.reset().unwrap();
    machine.console().skip();
    machine.wait_for("BdsDxe", FIRMWARE).unwrap();
    let timeout = machine
        .wait_for("never said", Duration::from_millis(50))
        .unwrap_err();
    assert!(
        timeout.to_string().contains("BdsDxe"),
        "the error shows the console's last lines: {timeout}"
    );
}

#[test]
fn qemus_own_words_are_in_the_error() {
    let spec = MachineSpec::new("bad")
        .accel(Accel::Tcg)
        .rtc(Rtc::At("not a date".into()));
    let error = Machine::start(spec).unwrap_err();
    assert!(
        matches!(&error, Error::Exited { stderr, .. } if stderr.contains("invalid datetime")),
        "{error}"
    );
}

#[test]
fn kvm_answer_is_kept() {
    let first = holdfast_qemu::kvm_works();
    eprintln!("KVM: {first:?}");
    assert_eq!(first, holdfast_qemu::kvm_works());
}
