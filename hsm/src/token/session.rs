//! A session that is logged in, and the key it signs with.

use std::{
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

use cryptoki::{
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, ObjectClass, ObjectHandle},
    session::{Session, UserType},
};

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tracing::warn;

use super::{
    TokenError, concerns_pin,
    condition::{Condition, Shared},
    failed,
    gate::{Gate, Visit},
    keeper,
    key::SignDigest,
    module::{Library, Module, Token},
    pool::Seats,
};
use crate::credential::Pin;

/// A signature every half minute is nothing to a token, and soon enough for people.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// All it takes to log in to a token, as often as needed, for whatever key; and the module, for the whole process.
pub struct Login {
    /// `None` only where it could not be loaded again.
    module: RwLock<Option<Module>>,
    library: Library,
    gate: Gate,
    token: String,
    /// Gone once the token refused it: a wrong PIN is never tried twice.
    pin: Mutex<Option<Pin>>,
    look_every: Duration,
    condition: Arc<Shared>,
    kept: Once,
    users: Mutex<Vec<Weak<Seats>>>,
}

impl Login {
    /// Login to the token labelled `token`.
    pub fn new(module: Module, token: &str, pin: Pin) -> Self {
        Self {
            library: module.library().clone(),
            module: RwLock::new(Some(module)),
            gate: Gate::default(),
            token: token.to_owned(),
            pin: Mutex::new(Some(pin)),
            look_every: LOOK_EVERY,
            condition: Arc::default(),
            kept: Once::new(),
            users: Mutex::default(),
        }
    }

    /// How long the token may be idle before it is seen whether it still signs.
    pub fn looked_at_every(mut self, look_every: Duration) -> Self {
        self.look_every = look_every;
        self
    }

    /// Whether the token signs, now and later.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.watch()
    }

    /// How long the call that has been inside the module longest has been there.
    pub fn longest_call(&self) -> Duration {
        self.gate.longest(Instant::now())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.condition
    }

    pub(super) fn token_label(&self) -> &str {
        &self.token
    }

    /// Goes inside the module, which is not taken away until the visit ends.
    pub(super) fn enter(&self) -> Result<Visit<'_>, TokenError> {
        self.gate.enter().ok_or(TokenError::Reloading)
    }

    /// Adds a pool, whose sessions are closed before the module is taken away; from the first on, a thread keeps the token.
    pub(super) fn keep_for(self: &Arc<Self>, seats: &Arc<Seats>) {
        let mut users = lock(&self.users);
        users.retain(|user| user.strong_count() > 0);
        users.push(Arc::downgrade(seats));
        self.kept.call_once(|| {
            keeper::start(Arc::downgrade(self), self.condition.clone(), self.look_every);
        });
    }

    /// Closes all sessions, finishes and unloads the module, loads and starts it again.
    pub(super) fn reload(&self) -> Result<(), TokenError> {
        let _alone = self.gate.shut();
        for user in self.users() {
            user.close_all();
        }
        let mut module = self.module.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = module.take().map(Module::finalize) {
            warn!(error = &error as &dyn std::error::Error, "the module could not be finished");
        }
        *module = Some(Module::load(&self.library)?);
        Ok(())
    }

    /// Has every pool sign something that is no certificate.
    pub(super) fn try_out(&self) -> Result<(), TokenError> {
        let digest = Sha256::digest(b"factory-signerd: does the token sign?").into();
        self.users().iter().try_for_each(|user| user.sign(0, digest).map(drop))
    }

    /// Whether there is a PIN that was not refused yet.
    pub(super) fn may_log_in(&self) -> bool {
        lock(&self.pin).is_some()
    }

    fn users(&self) -> Vec<Arc<Seats>> {
        lock(&self.users).iter().filter_map(Weak::upgrade).collect()
    }

    fn with_module<T>(&self, act: impl FnOnce(&Module) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let module = self.module.read().unwrap_or_else(PoisonError::into_inner);
        act(module.as_ref().ok_or_else(|| TokenError::Away("its module is not loaded".to_owned()))?)
    }

    fn log_in(&self, session: &Session, token: &Token) -> Result<(), TokenError> {
        let mut held = lock(&self.pin);
        let Some(pin) = held.as_ref() else {
            return Err(TokenError::PinRefused { label: token.label.clone(), source: None });
        };
        let result = log_in(session, token, pin);
        // The flags of a token only say that it must not be tried now.
        if matches!(result, Err(TokenError::PinRefused { .. })) {
            *held = None;
        }
        result
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.condition.end();
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
        let _inside = self.login.enter()?;
        self.login.with_module(|module| module.token(&self.login.token))
    }

    /// Opens a session, logs in and finds the key.
    pub fn open(&self) -> Result<KeySession, TokenError> {
        let _inside = self.login.enter()?;
        self.open_inside()
    }

    /// As [`Access::open`], for one who is inside the module already.
    pub(super) fn open_inside(&self) -> Result<KeySession, TokenError> {
        self.login.with_module(|module| {
            let token = module.token(&self.login.token)?;
            let session = module.context().open_ro_session(token.slot).map_err(failed("open a session"))?;
            self.login.log_in(&session, &token)?;
            let key = find_key(&session, &token, &self.key)?;
            Ok(KeySession { session, key })
        })
    }

    pub(super) fn login(&self) -> &Arc<Login> {
        &self.login
    }
}

// What is locked here is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

pub(super) fn find_key(session: &Session, token: &Token, label: &str) -> Result<ObjectHandle, TokenError> {
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
