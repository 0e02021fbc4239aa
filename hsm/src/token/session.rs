//! A session that is logged in, and the key it signs with.

use std::sync::{Arc, Mutex};

use cryptoki::{
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, ObjectClass, ObjectHandle},
    session::{Session, UserType},
};

use super::{
    TokenError, concerns_pin, failed,
    key::SignDigest,
    module::{Module, Token},
};
use crate::credential::Pin;

/// All it takes to log in to a token, as often as needed, for whatever key.
pub struct Login {
    module: Module,
    token: String,
    /// Gone once the token refused it: a wrong PIN is never tried twice.
    pin: Mutex<Option<Pin>>,
}

impl Login {
    /// Login to the token labelled `token`.
    pub fn new(module: Module, token: &str, pin: Pin) -> Self {
        Self { module, token: token.to_owned(), pin: Mutex::new(Some(pin)) }
    }

    fn token(&self) -> Result<Token, TokenError> {
        self.module.token(&self.token)
    }

    fn log_in(&self, session: &Session, token: &Token) -> Result<(), TokenError> {
        let mut held = self.pin.lock().expect("no thread panics while it holds the PIN");
        let Some(pin) = held.as_ref() else {
            return Err(TokenError::PinRefused { label: token.label.clone(), source: None });
        };
        let result = log_in(session, token, pin);
        if result.as_ref().is_err_and(TokenError::is_about_pin) {
            *held = None;
        }
        result
    }
}

/// All it takes to open a session and find the key in it, as often as needed.
pub struct Access {
    login: Arc<Login>,
    key: String,
}

impl Access {
    /// Access to the key labelled `key`.
    pub fn new(login: Arc<Login>, key: &str) -> Self {
        Self { login, key: key.to_owned() }
    }

    /// What the token says of itself now.
    pub fn token(&self) -> Result<Token, TokenError> {
        self.login.token()
    }

    /// Opens a session, logs in and finds the key.
    pub fn open(&self) -> Result<KeySession, TokenError> {
        let token = self.token()?;
        let session =
            self.login.module.context().open_ro_session(token.slot).map_err(failed("open a session"))?;
        self.login.log_in(&session, &token)?;
        let key = find_key(&session, &token, &self.key)?;
        Ok(KeySession { session, key })
    }
}

/// Logs the user in, unless that could lock the token.
pub(super) fn log_in(session: &Session, token: &Token, pin: &Pin) -> Result<(), TokenError> {
    if token.user_pin_locked {
        return Err(TokenError::PinLocked(token.label.clone()));
    }
    if token.user_pin_last_try {
        return Err(TokenError::PinLastTry(token.label.clone()));
    }
    match session.login(UserType::User, Some(&pin.to_auth())) {
        // Login is per token and process: the first session has done it for all.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(source) if concerns_pin(&source) => {
            Err(TokenError::PinRefused { label: token.label.clone(), source: Some(source) })
        }
        Err(source) => Err(TokenError::Failed { doing: "log in", source }),
    }
}

fn find_key(session: &Session, token: &Token, label: &str) -> Result<ObjectHandle, TokenError> {
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())];
    let found = session.find_objects(&template).map_err(failed("look for its keys"))?;
    match found.as_slice() {
        [key] => Ok(*key),
        [] => Err(TokenError::NoKey { token: token.label.clone(), key: label.to_owned() }),
        several => Err(TokenError::SeveralKeys {
            token: token.label.clone(),
            key: label.to_owned(),
            count: several.len(),
        }),
    }
}

/// An open session and the key in it. Belongs to one thread at a time.
pub struct KeySession {
    pub(super) session: Session,
    pub(super) key: ObjectHandle,
}

impl SignDigest for KeySession {
    fn sign_digest(&self, digest: [u8; 32]) -> Result<Vec<u8>, TokenError> {
        self.session.sign(&Mechanism::Ecdsa, self.key, &digest).map_err(failed("sign"))
    }
}
