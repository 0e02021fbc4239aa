//! How long hosts have the reader: from the port's opening to its closing, as the kernel tells them.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    thread,
};

use nix::errno::Errno;

use crate::work::{AtWork, Work};

/// Counts visits to `port` from now on, for as long as the process lives.
pub fn watch(port: &Path) -> io::Result<Work> {
    let path = CString::new(port.as_os_str().as_bytes())?;
    // SAFETY: the call takes a number.
    let fd = Errno::result(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
    // SAFETY: the kernel just made this descriptor for us.
    let kernel = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is open, and the path ends with a zero.
    let watched =
        unsafe { libc::inotify_add_watch(kernel.as_raw_fd(), path.as_ptr(), libc::IN_OPEN | libc::IN_CLOSE) };
    Errno::result(watched)?;
    let work = Work::default();
    let counted = work.clone();
    thread::spawn(move || count(File::from(kernel), &counted));
    Ok(work)
}

fn count(mut kernel: File, work: &Work) {
    let mut visit = None;
    // None has a name, since a port is no folder.
    let mut events = [0; 64 * mem::size_of::<libc::inotify_event>()];
    while let Ok(length @ 1..) = kernel.read(&mut events) {
        for event in events[..length].chunks_exact(mem::size_of::<libc::inotify_event>()) {
            let offset = mem::offset_of!(libc::inotify_event, mask);
            let mask = u32::from_ne_bytes(event[offset..offset + 4].try_into().expect("it has four bytes"));
            follow(&mut visit, mask, work);
        }
    }
}

/// A port has one host at a time. What the kernel has to tell twice in a row it tells once, so that visits that were begun
/// and visits that ended cannot be counted against each other: the first end is the end.
fn follow(visit: &mut Option<AtWork>, mask: u32, work: &Work) {
    if mask & libc::IN_OPEN != 0 {
        visit.get_or_insert_with(|| work.begin());
    } else {
        *visit = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_opened_twice_and_is_told_to_be_closed_once_is_closed() {
        let (work, mut visit) = (Work::default(), None);
        for mask in [libc::IN_CLOSE_WRITE, libc::IN_OPEN, libc::IN_OPEN] {
            follow(&mut visit, mask, &work);
        }
        assert!(visit.is_some());
        follow(&mut visit, libc::IN_CLOSE_NOWRITE, &work);
        work.take();
        assert!(visit.is_none() && work.take().is_zero());
    }
}
