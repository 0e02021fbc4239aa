//! What `factory-signerd` can be told to do, a file for each.

use std::{
    env,
    path::{Path, PathBuf},
};

use factory_hsm::credential::{CredentialError, Pin};

pub mod init;
pub mod ledger;
pub mod serve;

/// The service manager's credentials come first.
fn read_pin(credential: &Path) -> Result<Pin, CredentialError> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Pin::read(credential, directory.as_deref())
}
