//! The moments of a simulator: it tells each to whoever listens, and goes on when it may. Where nobody listens it does
//! not stop.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use tokio::sync::oneshot;

use super::{Held, Trap};

/// The simulator's end.
#[derive(Debug, Clone, Default)]
pub struct Moments(Option<PathBuf>);

impl Moments {
    /// Tells those who listen at the socket, if one is given.
    pub fn to(socket: Option<PathBuf>) -> Self {
        Self(socket)
    }

    /// Tells what just happened; returns when the simulator may go on.
    pub fn tell(&self, what: &str) {
        let Some(mut listener) = self.0.as_ref().and_then(|socket| UnixStream::connect(socket).ok()) else {
            return;
        };
        if listener.write_all(format!("{what}\n").as_bytes()).is_ok() {
            // A listener that hangs up, whichever way, lets it go on.
            let _ = listener.read(&mut [0]);
        }
    }
}

/// The listener's end; it listens until its process ends.
#[derive(Debug)]
pub struct Listener {
    trap: Arc<Trap>,
}

impl Listener {
    /// Listens at `socket`, which is made anew.
    pub fn at(socket: &Path) -> io::Result<Self> {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (listener, trap) = (UnixListener::bind(socket)?, Arc::new(Trap::default()));
        let passers = trap.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let trap = passers.clone();
                thread::spawn(move || {
                    let mut what = String::new();
                    // Half a line is nothing that is waited for.
                    let _ = BufReader::new(&stream).take(256).read_line(&mut what);
                    trap.pass(what.trim_end());
                });
            }
        });
        Ok(Self { trap })
    }

    /// Holds the simulator that tells `what` for the `nth` time from now, counted from 1.
    pub fn arm(&self, what: &str, nth: u32) -> oneshot::Receiver<Held> {
        self.trap.arm(what, nth)
    }
}
