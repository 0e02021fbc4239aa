//! A loaded PKCS#11 module and the tokens it shows.
//!
//! The process must not fork once a module is loaded: its locks and sockets do not survive that.

use std::{ffi::CString, fmt, path::PathBuf, ptr::NonNull};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    slot::{Slot, TokenInfo},
};

use super::{TokenError, failed};

/// A PKCS#11 module, started.
pub struct Module {
    context: Pkcs11,
    library: Library,
    /// What the module was started with, which it may look at as long as it runs.
    _arguments: Option<CString>,
}

/// A module's file, and what it is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The shared library.
    pub path: PathBuf,
    /// Some modules, such as NSS's, are told by this where their keys lie; without a NUL.
    pub arguments: Option<String>,
}

/// A token, as it describes itself.
#[derive(Debug, Clone)]
pub struct Token {
    pub(super) slot: Slot,
    /// Its label, without padding.
    pub label: String,
    /// Its serial number, without padding.
    pub serial: String,
    /// Manufacturer, model and firmware version.
    pub hardware: String,
    /// A user PIN has been set.
    pub user_pin_set: bool,
    /// Too many wrong PINs.
    pub user_pin_locked: bool,
    /// One more wrong PIN locks it.
    pub user_pin_last_try: bool,
    /// At least one wrong PIN was tried since the last right one.
    pub user_pin_count_low: bool,
    /// The PIN must be changed: it is the manufacturer's.
    pub user_pin_to_be_changed: bool,
}

impl Token {
    fn new(slot: Slot, info: &TokenInfo) -> Self {
        Self {
            slot,
            label: trimmed(info.label()),
            serial: trimmed(info.serial_number()),
            hardware: format!(
                "{} {}, firmware {}",
                trimmed(info.manufacturer_id()),
                trimmed(info.model()),
                info.firmware_version()
            ),
            user_pin_set: info.user_pin_initialized(),
            user_pin_locked: info.user_pin_locked(),
            user_pin_last_try: info.user_pin_final_try(),
            user_pin_count_low: info.user_pin_count_low(),
            user_pin_to_be_changed: info.user_pin_to_be_changed(),
        }
    }
}

/// PKCS#11 pads with blanks, some modules with NULs.
fn trimmed(text: &str) -> String {
    text.trim_end_matches([' ', '\0']).to_owned()
}

impl Module {
    /// Loads and starts a module.
    pub fn load(library: &Library) -> Result<Self, TokenError> {
        let path = &library.path;
        let context =
            Pkcs11::new(path).map_err(|source| TokenError::Module { path: path.to_owned(), source })?;
        let arguments = library.arguments.as_deref();
        let arguments = arguments.map(|text| CString::new(text).expect("the signer's file holds no NUL"));
        let flags = CInitializeFlags::OS_LOCKING_OK;
        let start = match &arguments {
            // SAFETY: pReserved is a C string for those modules that want one (NSS), and it lives as long as the module
            // runs; who writes `module-arguments` has such a module.
            Some(text) => unsafe {
                let text = NonNull::new(text.as_ptr().cast_mut()).expect("it is somewhere");
                CInitializeArgs::new_with_reserved(flags, text.cast())
            },
            None => CInitializeArgs::new(flags),
        };
        match context.initialize(start) {
            // One that could not be finished before is still started.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                Ok(Self { context, library: library.clone(), _arguments: arguments })
            }
            Err(source) => Err(TokenError::Start { path: path.to_owned(), source }),
        }
    }

    /// What was loaded.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Stops the module; all its sessions must have been closed.
    pub fn finalize(self) -> Result<(), TokenError> {
        self.context.finalize().map_err(failed("finish"))
    }

    /// The one token that has this label.
    pub fn token(&self, label: &str) -> Result<Token, TokenError> {
        let tokens = self.tokens(TokenInfo::token_initialized)?;
        let mut matching = tokens.iter().filter(|token| token.label == label);
        match (matching.next(), matching.count()) {
            (Some(token), 0) => Ok(token.clone()),
            (Some(_), more) => Err(TokenError::SeveralTokens { label: label.to_owned(), count: 1 + more }),
            (None, _) => {
                let labels: Vec<_> = tokens.iter().map(|token| format!("{:?}", token.label)).collect();
                let found = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
                Err(TokenError::NoToken { label: label.to_owned(), found })
            }
        }
    }

    /// The token that nobody has given a label yet, if there is exactly one.
    pub(super) fn blank_token(&self) -> Result<Option<Token>, TokenError> {
        let mut blank = self.tokens(|info| !info.token_initialized())?;
        Ok(if blank.len() == 1 { blank.pop() } else { None })
    }

    fn tokens(&self, wanted: impl Fn(&TokenInfo) -> bool) -> Result<Vec<Token>, TokenError> {
        let slots = self.context.get_slots_with_token().map_err(failed("list its slots"))?;
        // A token that cannot describe itself is not ours; another one may be.
        let described =
            slots.into_iter().filter_map(|slot| Some((slot, self.context.get_token_info(slot).ok()?)));
        Ok(described.filter(|(_, info)| wanted(info)).map(|(slot, info)| Token::new(slot, &info)).collect())
    }

    /// The mechanisms of a token, in PKCS#11's words.
    ///
    /// # Errors
    /// It does not tell.
    pub fn mechanisms(&self, token: &Token) -> Result<Vec<String>, TokenError> {
        let all = self.context.get_mechanism_list(token.slot).map_err(failed("list its mechanisms"))?;
        Ok(all.iter().map(ToString::to_string).collect())
    }

    pub(super) fn context(&self) -> &Pkcs11 {
        &self.context
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.library.path.display())?;
        match self.context.get_library_info() {
            Ok(info) => write!(
                f,
                " ({} {}, version {})",
                trimmed(info.manufacturer_id()),
                trimmed(info.library_description()),
                info.library_version()
            ),
            Err(_) => Ok(()),
        }
    }
}
