//! Virtual machines as verbs: describe one ([`MachineSpec`]), power it on ([`Machine`]), wait for
//! what its console says ([`Console`]), cut its power, look at the bytes of its disk ([`Disk`]).
//!
//! Nothing here needs root. A machine is QEMU's `q35` (or another [`Platform`]) with UEFI firmware,
//! one virtio disk, user-mode network (the host's loopback is 10.0.2.2 inside), an i6300esb watchdog
//! that resets, and a serial console that goes to a file. A machine that is dropped is killed; if its
//! test panicked, the path of its console log is printed and the log stays.

mod accel;
mod args;
mod console;
mod disk;
mod error;
mod firmware;
mod guest;
mod home;
mod lan;
mod machine;
mod platform;
mod qmp;
mod raspi;
mod spec;
mod switch;

pub use accel::{Accel, kvm_works};
pub use args::mac;
pub use console::Console;
pub use disk::{Disk, ImageFormat};
pub use error::{Error, Result, Scene};
pub use firmware::Firmware;
pub use guest::GuestAgent;
pub use lan::Lan;
pub use machine::{Machine, free_tcp_port};
pub use platform::Platform;
pub use qmp::Qmp;
pub use spec::{Card, DiskBus, Forward, MachineSpec, Nic, Protocol, Rtc};
pub use switch::Switch;
