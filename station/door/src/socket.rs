//! The Unix socket: takes a stale one's place, never a living one's, and leaves nothing behind.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another server answers there.
    #[error("another server listens on {}: stop it first, or set another `socket`", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket, and so not ours to remove.
    #[error("{} exists and is no socket: remove it, or set another `socket`", .0.display())]
    NoSocket(PathBuf),
    /// The folder is missing or not ours.
    #[error("cannot listen on {}: its folder must exist and be writable for this user", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The name of a socket in the file system; removed when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing is lost when it is gone already; a stale one is replaced at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens on `path`, to which `mode` lets connect; who of them may ask is decided when they do.
///
/// # Errors
/// Somebody else has it.
pub fn listen(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), SocketError> {
    let failed = |source| SocketError::Listen { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) => remove_stale(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed)?;
    Ok((listener, file))
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| SocketError::Listen { path: path.to_owned(), source })
        }
        // A full backlog (WouldBlock) or a closed door (PermissionDenied) has somebody behind it.
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}
