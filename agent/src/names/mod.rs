//! The cluster's names on the mesh (decision 15): `NODE.CLUSTER.internal` is answered on port 53
//! of the node's mesh addresses, and on no other: CoreDNS stops when it meets its own questions on
//! loopback. The node itself reads them from `/etc/hosts` ([`crate::hosts`]), so nothing on it
//! needs the resolver to run.

mod answer;
mod keep;
mod serve;
mod table;

pub use keep::keep;
pub use serve::serve;
pub use table::Table;
