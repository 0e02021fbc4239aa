//! Holds a program at a chosen moment, so that somebody can be killed exactly there. The moments of a log are
//! seen from outside ([`log`]); those of a simulator it tells itself ([`simulator`]).

use std::sync::{
    Mutex, PoisonError,
    mpsc::{Sender, channel},
};

use tokio::sync::oneshot;

pub mod log;
pub mod simulator;

/// A program that stands still until this is dropped.
#[derive(Debug)]
pub struct Held {
    _let_go: Sender<()>,
}

/// Where programs pass by; at most one is waited for at a time.
#[derive(Debug, Default)]
pub(crate) struct Trap(Mutex<Option<Armed>>);

#[derive(Debug)]
struct Armed {
    what: String,
    left: u32,
    tell: oneshot::Sender<Held>,
}

impl Trap {
    /// Holds who passes with `what` for the `nth` time from now, counted from 1. What was waited for before is
    /// forgotten.
    pub(crate) fn arm(&self, what: &str, nth: u32) -> oneshot::Receiver<Held> {
        let (tell, told) = oneshot::channel();
        let armed = Armed { what: what.to_owned(), left: nth, tell };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(armed);
        told
    }

    /// Passes by; returns when it may go on.
    pub(crate) fn pass(&self, what: &str) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(armed) = place.as_mut().filter(|armed| armed.what == what) else { return };
        armed.left = armed.left.saturating_sub(1);
        if armed.left > 0 {
            return;
        }
        let Some(armed) = place.take() else { return };
        drop(place);
        let (let_go, held) = channel();
        // Who waited may have given up; then nobody is held.
        if armed.tell.send(Held { _let_go: let_go }).is_ok() {
            let _ = held.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn the_one_that_is_waited_for_is_held_until_it_is_let_go() {
        let trap = Arc::new(Trap::default());
        let mut told = trap.arm("done", 2);
        trap.pass("begun");
        trap.pass("done");
        assert!(told.try_recv().is_err(), "it was the first");
        let passing = thread::spawn({
            let trap = trap.clone();
            move || trap.pass("done")
        });
        let held = told.blocking_recv().expect("the second is held");
        assert!(!passing.is_finished());
        drop(held);
        passing.join().expect("it goes on");
        trap.pass("done");
    }
}
