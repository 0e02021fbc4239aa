//! The line that the station belongs to: its controllers, whose leave a unit needs, and what the station may do without
//! them.

use std::path::Path;

use factory_jws::{JwsKeyError, PublicKeys};
use factory_proto::ids::NestName;

pub mod allowance;
pub mod budget;
pub mod controllers;
pub mod heartbeat;
pub mod interlock;
pub mod offline;
pub mod refusals;
pub mod standing;

use controllers::Controllers;
use interlock::Interlock;
use offline::Offline;
use refusals::Refusals;

/// The line, as all parts of a station see it; clones share it.
#[derive(Clone)]
pub struct Line {
    /// The station's name, under which the controllers know it.
    pub station: NestName,
    /// Who is asked and told.
    pub controllers: Controllers,
    /// Whether units need leave.
    pub interlock: Interlock,
    /// What may be started while no controller answers.
    pub offline: Offline,
    /// Which units did not get leave.
    pub refusals: Refusals,
}

/// The key that offline allowances are held against, where the station file names one.
///
/// # Errors
/// The file holds none.
pub fn allowance_keys(file: Option<&Path>) -> Result<Option<PublicKeys>, JwsKeyError> {
    file.map(|file| PublicKeys::read(&[file.to_owned()])).transpose()
}
