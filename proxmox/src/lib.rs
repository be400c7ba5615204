//! Holdfast's machines on Proxmox VE.

pub mod cidata;
pub mod iso;
