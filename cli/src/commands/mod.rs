//! One module a verb: its options and what it does.

pub mod build;
pub mod client;
pub mod cluster;
pub mod completions;
pub mod evict;
pub mod flash;
pub mod history;
pub mod join;
pub mod kubeconfig;
pub mod kubectl;
pub mod lighthouse;
pub mod lock;
pub mod logs;
pub mod mesh;
pub mod nodes;
pub mod policy;
pub mod proxmox;
pub mod reboot;
pub mod recipe;
pub mod restart_agent;
pub mod rollback;
pub mod seed;
pub mod status;
pub mod token;
pub mod upgrade;
pub mod vm;
