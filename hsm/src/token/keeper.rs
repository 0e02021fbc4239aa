//! Brings the token back: one thread for all pools of the process, so that a module is only ever taken away once.
//!
//! Sessions that are opened again are not always enough (SoftHSM, p11-kit): the module is finished, unloaded, loaded and
//! started anew, and every pool must sign with it before the token counts as back.

use std::{
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use tracing::{debug, error, info, warn};

use super::{
    TokenError,
    condition::{Condition, Duty, Shared},
    session::Login,
};

/// Doubled after each attempt that failed, the first one among them: so that is followed by half a second.
const LEAST_PAUSE: Duration = Duration::from_millis(250);
/// A token that was plugged in again is noticed after this at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Starts the thread; it ends when `shared` does.
pub fn start(login: Weak<Login>, shared: Arc<Shared>, look_every: Duration) {
    thread::spawn(move || keep(&login, &shared, look_every));
}

fn keep(login: &Weak<Login>, shared: &Shared, look_every: Duration) {
    let mut pause = LEAST_PAUSE;
    loop {
        let duty = shared.duty(look_every, pause);
        // Not while it waits: the login would never end.
        let Some(login) = login.upgrade() else { return };
        let now = Instant::now();
        match duty {
            Duty::End => return,
            Duty::Look => match login.try_out() {
                Ok(()) => {
                    debug!("the token was idle, and signs");
                    shared.signed();
                }
                Err(fault) => {
                    warn!(error = &fault as &dyn std::error::Error, "the token was idle, and does not sign");
                    shared.lose(now);
                }
            },
            Duty::Revive => match revive(&login, shared) {
                Ok(()) => {
                    info!("the token signs again");
                    shared.set(Condition::Signs);
                    pause = LEAST_PAUSE;
                }
                Err(fault) => {
                    shared.set(condition_of(&fault));
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            },
        }
    }
}

fn revive(login: &Login, shared: &Shared) -> Result<(), TokenError> {
    // What a human has to do shows in the token's flags; without a PIN there is nothing to wait for.
    let known = shared.watch().borrow().clone();
    if !login.may_log_in() {
        return Err(TokenError::PinRefused { label: login.token_label().to_owned(), source: None });
    }
    let revived = login.reload().and_then(|()| login.try_out());
    if let Err(fault) = &revived {
        let text = said(fault);
        match &known {
            Condition::Away { reason } | Condition::Barred { reason } if *reason == text => {}
            _ if fault.is_about_pin() => error!(fault = text, "the token is left alone"),
            _ => warn!(fault = text, "the token is away; trying on"),
        }
    }
    revived
}

fn condition_of(fault: &TokenError) -> Condition {
    let reason = said(fault);
    if fault.is_about_pin() { Condition::Barred { reason } } else { Condition::Away { reason } }
}

/// The whole chain, in one line.
pub(super) fn said(fault: &TokenError) -> String {
    let mut text = fault.to_string();
    let mut cause = std::error::Error::source(fault);
    while let Some(because) = cause {
        text = format!("{text}: {because}");
        cause = because.source();
    }
    text
}
