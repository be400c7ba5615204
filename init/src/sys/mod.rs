//! The few system calls that have no safe wrapper, one device a file. Nothing here decides.

pub mod block;
pub mod dm;
pub mod spawn;
pub mod tun;
pub mod watchdog;
