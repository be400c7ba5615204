//! Holdfast qemu.
