//! Simulators of all that a station touches, each served by a process of its own; a reference
//! controller; and the rig that wires them to a real station and a real signer.
//!
//! Nothing of this is compiled into the daemon: the daemon under test is the daemon that ships.

pub mod child;
pub mod cluster;
pub mod control;
pub mod device;
pub mod judge;
pub mod mes;
pub mod moment;
pub mod power_cut;
pub mod pty;
pub mod python;
pub mod reader;
pub mod rig;
pub mod target;
pub mod work;
