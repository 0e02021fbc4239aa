//! The PKCS#11 token that holds the CA's key. The only place that names cryptoki's sessions.
//!
//! Knows nothing of certificates except that rcgen wants them signed.

pub mod commission;
pub mod condition;
pub mod ecdsa;
mod gate;
mod keeper;
pub mod key;
pub mod module;
pub mod pool;
pub mod session;

use std::path::PathBuf;

use cryptoki::error::{Error, RvError};

/// What went wrong with module, token, PIN or key; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The shared library is missing, or is no PKCS#11 module.
    #[error("PKCS#11 module {} cannot be loaded: install the token's driver or correct `module`", path.display())]
    Module {
        /// The library.
        path: PathBuf,
        /// Why not.
        source: Error,
    },
    /// The module is there and does not start.
    #[error("PKCS#11 module {} does not start: check the module's own configuration", path.display())]
    Start {
        /// The library.
        path: PathBuf,
        /// Why not.
        source: Error,
    },
    /// No token has the label.
    #[error(
        "no token with label {label:?} (found: {found}): plug it in, correct `token-label`, \
         or make it with `factory-signerd init`"
    )]
    NoToken {
        /// The label looked for.
        label: String,
        /// The labels found.
        found: String,
    },
    /// Labels are not unique.
    #[error("{count} tokens have label {label:?}: leave only one of them plugged in")]
    SeveralTokens {
        /// The label.
        label: String,
        /// How many tokens have it.
        count: usize,
    },
    /// The token refused the PIN, which is never tried again.
    #[error(
        "token {label:?} refused the PIN, which is not tried again: \
         correct the credential before the next start, a few wrong PINs lock the token"
    )]
    PinRefused {
        /// The token.
        label: String,
        /// What the token said.
        #[source]
        source: Option<Error>,
    },
    /// One more wrong PIN would lock the token.
    #[error(
        "token {0:?} has one try for its PIN left: log in by hand with the right PIN first, so that it counts anew"
    )]
    PinLastTry(String),
    /// Too many wrong PINs.
    #[error("the PIN of token {0:?} is locked: let the security officer set a new one")]
    PinLocked(String),
    /// No key pair has the label.
    #[error(
        "token {token:?} holds no private key {key:?}: correct its `key-label`, \
         or make the key with `factory-signerd init`"
    )]
    NoKey {
        /// The token.
        token: String,
        /// The label looked for.
        key: String,
    },
    /// Which of them is meant?
    #[error("token {token:?} holds {count} private keys {key:?}: remove or rename all but the CA's")]
    SeveralKeys {
        /// The token.
        token: String,
        /// The label.
        key: String,
        /// How many keys have it.
        count: usize,
    },
    /// A private key that nobody can be told apart by.
    #[error(
        "token {token:?} holds {count} public keys {key:?}, and one is needed: remove or rename the others"
    )]
    PublicKeys {
        /// The token.
        token: String,
        /// The label.
        key: String,
        /// How many keys have it.
        count: usize,
    },
    /// Two keys of one label that are no pair.
    #[error(
        "the private key {key:?} in token {token:?} does not belong to the public key of that label: remove the wrong one"
    )]
    Halves {
        /// The token.
        token: String,
        /// The label.
        key: String,
    },
    /// A second key pair with the same label would make both useless.
    #[error(
        "token {token:?} holds objects labelled {key:?} already: nothing was changed, choose another `key-label`"
    )]
    KeyExists {
        /// The token.
        token: String,
        /// The label.
        key: String,
    },
    /// The token made a key that could leave it.
    #[error("the token made a key that is not safe ({attributes}): it was destroyed, use another token")]
    UnsafeKey {
        /// What the token says of it.
        attributes: String,
    },
    /// The security officer's PIN is needed and not there.
    #[error("token {0:?} has to be prepared by its security officer: set `so-pin-credential`")]
    NoSoPin(String),
    /// The token answered with an error.
    #[error("the token could not {doing}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// What the token said.
        source: Error,
    },
    /// No P-256 signature, no P-256 point.
    #[error("the token answered with {length} bytes where {what} was expected")]
    Answer {
        /// What was expected.
        what: &'static str,
        /// The length of what came.
        length: usize,
    },
    /// Too many signatures are waiting.
    #[error("too many requests wait for the token already")]
    Busy,
    /// Lost a moment ago.
    #[error("the token's module is being loaded again")]
    Reloading,
    /// Lost, and not back yet.
    #[error("the token cannot be used at present: {0}")]
    Away(String),
    /// The token did not answer in time.
    #[error("the token did not sign within {0:?}")]
    Deadline(std::time::Duration),
    /// A signature that does not verify with the key's own certificate.
    #[error("the token signed with another key than its certificate says")]
    OtherKey,
}

impl TokenError {
    /// Starting again does not help; trying the PIN again does harm.
    pub fn is_about_pin(&self) -> bool {
        matches!(self, Self::PinRefused { .. } | Self::PinLastTry(_) | Self::PinLocked(_))
    }

    /// A fresh session or a fresh module may help: it is neither about the PIN nor known to be away.
    fn may_pass(&self) -> bool {
        !self.is_about_pin() && !matches!(self, Self::Away(_))
    }
}

/// Turns a PKCS#11 error into ours: `.map_err(failed("open a session"))`.
fn failed(doing: &'static str) -> impl FnOnce(Error) -> TokenError {
    move |source| TokenError::Failed { doing, source }
}

/// The token's way to say that it did not like the PIN (PKCS#11 v2.40, section 5.1).
fn concerns_pin(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked
                | RvError::UserPinNotInitialized,
            _
        )
    )
}
