//! What `answer` reads of `agent/src/names/table.rs`, which needs the rest of the agent.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy)]
pub struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

pub struct Table {
    pub zone: String,
    pub names: BTreeMap<String, Addresses>,
}
