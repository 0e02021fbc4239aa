//! Child processes that cannot outlive this one. Does not know what they are.

use std::{
    io,
    ops::{Deref, DerefMut},
    os::{fd::RawFd, unix::process::CommandExt},
    process::{self, Command},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{prctl, signal::Signal},
    unistd::getppid,
};

/// A process that is killed and reaped when this is dropped.
pub struct Child(process::Child);

impl Child {
    /// Starts `command`; the descriptors in `inherited` are open in it under their own numbers.
    ///
    /// The kernel kills it when the *thread* that called this ends, so call it from one that lasts.
    pub fn spawn(mut command: Command, inherited: Vec<RawFd>) -> io::Result<Self> {
        let parent = process::id();
        let prepare = move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid().as_raw().cast_unsigned() != parent {
                return Err(io::Error::other("the parent died before its child began"));
            }
            for fd in &inherited {
                // SAFETY: the caller of `spawn` holds these descriptors open until it returns.
                let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec, `prepare` makes system calls only.
        unsafe { command.pre_exec(prepare) };
        command.spawn().map(Self)
    }
}

impl Deref for Child {
    type Target = process::Child;

    fn deref(&self) -> &process::Child {
        &self.0
    }
}

impl DerefMut for Child {
    fn deref_mut(&mut self) -> &mut process::Child {
        &mut self.0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended and was reaped, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
