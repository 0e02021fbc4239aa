//! A pseudo-terminal that stands for a serial port: the station opens its path, a simulator holds the other end.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::{
    libc::O_NOCTTY,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::termios::{self, SetArg},
};

/// Both ends of a raw pseudo-terminal; `path` links to the port for as long as this lives.
pub struct Pty {
    /// What the simulator reads and writes.
    pub master: File,
    path: PathBuf,
    // Kept open: the line's settings then outlive each client, and the master never sees EIO between two.
    _port: File,
}

impl Pty {
    /// Opens a pair and links `path` to its port.
    pub fn open(path: &Path) -> io::Result<Self> {
        let master = posix_openpt(
            nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY | nix::fcntl::OFlag::O_CLOEXEC,
        )?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname_r(&master)?;
        let port = OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY).open(&name)?;
        let mut settings = termios::tcgetattr(&port)?;
        termios::cfmakeraw(&mut settings);
        termios::cfsetspeed(&mut settings, termios::BaudRate::B115200)?;
        termios::tcsetattr(&port, SetArg::TCSANOW, &settings)?;
        if fs::symlink_metadata(path).is_ok() {
            fs::remove_file(path)?;
        }
        symlink(&name, path)?;
        // PtyMaster owns the descriptor; a File is what readers and writers know.
        let master = File::from(std::os::fd::OwnedFd::from(master));
        Ok(Self { master, path: path.to_owned(), _port: port })
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
