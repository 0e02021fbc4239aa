//! A PIN, and the file it comes from. The only place that reads one.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

/// No token takes a longer PIN; a longer file is not a PIN.
const PIN_LIMIT: usize = 256;

/// Proves to a token who we are. Cannot be printed, and is wiped when dropped.
pub struct Pin(Zeroizing<String>);

/// Why there is no PIN; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A plain name, and nobody passed credentials.
    #[error(
        "credential {0:?} is a name and CREDENTIALS_DIRECTORY is not set: \
         pass it with systemd's LoadCredential, or write an absolute path"
    )]
    NoDirectory(PathBuf),
    /// Not there, or not for us.
    #[error("PIN file {} cannot be read: create it with mode 0600, owned by the signer's user", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read or replace it.
    #[error("PIN file {} has mode {mode:04o}: take it from all others with chmod 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else's file.
    #[error("PIN file {} belongs to user {owner}: it must belong to the signer's user or to root", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Empty, too long or no text.
    #[error("PIN file {} does not hold a PIN: write 1 to 256 bytes of text on one line", .0.display())]
    NoPin(PathBuf),
}

impl Pin {
    /// Reads the PIN from `credential`: an absolute path, or a name inside `directory`
    /// (systemd's `$CREDENTIALS_DIRECTORY`).
    pub fn read(credential: &Path, directory: Option<&Path>) -> Result<Self, CredentialError> {
        if credential.is_absolute() {
            return Self::read_file(credential, false);
        }
        let directory = directory.ok_or_else(|| CredentialError::NoDirectory(credential.to_owned()))?;
        Self::read_file(&directory.join(credential), true)
    }

    fn read_file(path: &Path, passed_by_systemd: bool) -> Result<Self, CredentialError> {
        let unreadable = |source| CredentialError::Unreadable { path: path.to_owned(), source };
        // Opening a FIFO would block for ever.
        let file =
            File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(unreadable)?;
        check_access(path, &file.metadata().map_err(unreadable)?, passed_by_systemd)?;

        // Room for all of it, so that no unwiped copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(2 * PIN_LIMIT));
        let limit = u64::try_from(PIN_LIMIT + 2).expect("fits");
        match file.take(limit).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(CredentialError::NoPin(path.to_owned()));
            }
            Err(error) => return Err(unreadable(error)),
        }
        let length = text.trim_end_matches(['\n', '\r']).len();
        text.truncate(length);
        if text.is_empty() || text.len() > PIN_LIMIT || text.contains(['\n', '\r', '\0']) {
            return Err(CredentialError::NoPin(path.to_owned()));
        }
        Ok(Self(text))
    }

    /// Why everybody could guess it, if they could. Nothing is tried.
    pub fn weakness(&self) -> Option<&'static str> {
        const KNOWN: [&str; 12] = [
            "0000", "000000", "00000000", "1111", "111111", "1234", "12345", "123456", "12345678", "648219",
            "userpin", "password",
        ];
        if KNOWN.contains(&self.0.as_str()) {
            Some("is one that manufacturers ship")
        } else if self.0.len() < 6 {
            Some("has less than 6 characters")
        } else {
            None
        }
    }

    /// As cryptoki wants it; wiped when dropped, too.
    pub(crate) fn to_auth(&self) -> AuthPin {
        AuthPin::new(self.0.as_str().into())
    }
}

fn check_access(path: &Path, file: &Metadata, passed_by_systemd: bool) -> Result<(), CredentialError> {
    if !file.is_file() {
        return Err(CredentialError::NoPin(path.to_owned()));
    }
    let mode = file.permissions().mode() & 0o777;
    // systemd gives the service's user access by an ACL, whose mask shows as the group's bits (0440, root:root).
    let shared_by_acl = passed_by_systemd && mode == 0o440 && file.uid() == 0 && file.gid() == 0;
    if mode & 0o077 != 0 && !shared_by_acl {
        return Err(CredentialError::Exposed { path: path.to_owned(), mode });
    }
    if file.uid() != 0 && file.uid() != nix::unistd::getuid().as_raw() {
        return Err(CredentialError::Foreign { path: path.to_owned(), owner: file.uid() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(content: &[u8], mode: u32) -> Result<Pin, CredentialError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        Pin::read(Path::new("pin"), Some(directory.path()))
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_the_pin() {
        for content in ["1234", "1234\n", "1234\r\n"] {
            assert_eq!(*check(content.as_bytes(), 0o600).ok().unwrap().0, "1234");
        }
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let long = [b'1'; PIN_LIMIT + 1];
        for content in [&b""[..], b"\n", b"12\n34", b"\xff\xfe", b"1\0", &long] {
            assert!(matches!(check(content, 0o600), Err(CredentialError::NoPin(_))), "{content:?}");
        }
    }

    #[test]
    fn a_file_that_others_may_open_is_refused() {
        for mode in [0o640, 0o604, 0o660, 0o644, 0o620] {
            let refused = check(b"1234", mode).err().expect("must be refused");
            assert!(matches!(refused, CredentialError::Exposed { mode: found, .. } if found == mode));
        }
    }

    #[test]
    fn a_name_without_a_credentials_directory_is_refused() {
        let refused = Pin::read(Path::new("pin"), None).err().expect("must be refused");
        assert!(matches!(refused, CredentialError::NoDirectory(_)));
    }
}
