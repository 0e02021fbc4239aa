//! A PKCS#11 module for tests: passes its calls on to a real one, and misbehaves when a file says so.
//!
//! It takes three environment variables:
//! - `FAULTY_MODULE`: the real module;
//! - `FAULTY_CONTROL`: a file that may come and go, each line a function and what it is to do:
//!   `C_Sign delay 20` (milliseconds, then goes on; not when it is only asked for the length), `C_Sign hang` (until the line is gone), `C_Login fail 160` (returns
//!   this `CK_RV` and calls nothing), `C_Sign close` (closes the session first), `C_Sign logout` (logs out first),
//!   `C_GetTokenInfo flags 131072` (sets these, too). With `once` in front, the first call that finds it removes the file.
//! - `FAULTY_CALLS`: optional; the name of each function below is appended to it, a line for each call, before it is made.

use std::{env, fs, io::Write, sync::OnceLock, thread::sleep, time::Duration};

use cryptoki_sys::{
    CK_BYTE_PTR, CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR_PTR, CK_MECHANISM_PTR, CK_NOTIFY,
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_HANDLE_PTR, CK_SLOT_ID, CK_TOKEN_INFO_PTR,
    CK_ULONG, CK_ULONG_PTR, CK_USER_TYPE, CK_UTF8CHAR_PTR, CK_VOID_PTR, CKR_GENERAL_ERROR, CKR_OK, Pkcs11,
};

struct Forwarder {
    /// Keeps the functions where they are.
    _library: Pkcs11,
    real: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
}

// SAFETY: function pointers; PKCS#11 says who may call them when.
unsafe impl Send for Forwarder {}
unsafe impl Sync for Forwarder {}

static FORWARDER: OnceLock<Option<Forwarder>> = OnceLock::new();

impl Forwarder {
    fn load() -> Option<Self> {
        let path = env::var_os("FAULTY_MODULE")?;
        // SAFETY: the module's word is that it is one.
        unsafe {
            let library = Pkcs11::new(path).ok()?;
            let mut list = std::ptr::null_mut();
            if library.C_GetFunctionList(&raw mut list) != CKR_OK {
                return None;
            }
            let real = *list;
            let ours = CK_FUNCTION_LIST {
                C_Initialize: Some(initialize),
                C_Finalize: Some(finalize),
                C_GetTokenInfo: Some(token_info),
                C_OpenSession: Some(open_session),
                C_Login: Some(login),
                C_SignInit: Some(sign_init),
                C_Sign: Some(sign),
                ..real
            };
            Some(Self { _library: library, real, ours })
        }
    }
}

/// The module's only symbol.
///
/// # Safety
/// `list` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    match FORWARDER.get_or_init(Forwarder::load) {
        Some(forwarder) => {
            // SAFETY: the caller's word; nobody writes through it.
            unsafe { *list = (&raw const forwarder.ours).cast_mut() };
            CKR_OK
        }
        None => CKR_GENERAL_ERROR,
    }
}

fn real() -> &'static CK_FUNCTION_LIST {
    &FORWARDER.get().and_then(Option::as_ref).expect("whoever calls has our functions from us").real
}

/// What a call is to do, as far as the file says anything of it.
fn order(function: &str) -> Option<(String, CK_ULONG)> {
    let path = env::var_os("FAULTY_CONTROL")?;
    let text = fs::read_to_string(&path).ok()?;
    for line in text.lines() {
        let (once, line) = match line.strip_prefix("once ") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let mut words = line.split(' ');
        if words.next() != Some(function) {
            continue;
        }
        // Of several calls at a time, one removes it.
        if once && fs::remove_file(&path).is_err() {
            return None;
        }
        let action = words.next()?.to_owned();
        return Some((action, words.next().and_then(|number| number.parse().ok()).unwrap_or(0)));
    }
    None
}

fn note(function: &str) {
    let Some(path) = env::var_os("FAULTY_CALLS") else { return };
    if let Ok(mut file) = fs::File::options().create(true).append(true).open(path) {
        // One write: lines of several threads do not mix. A test that misses one fails.
        let _ = file.write_all(format!("{function}\n").as_bytes());
    }
}

/// Makes a call, or what the file says instead; `session` is the call's, if it has one.
fn call(function: &str, session: Option<CK_SESSION_HANDLE>, forward: impl FnOnce() -> CK_RV) -> CK_RV {
    note(function);
    let Some((action, number)) = order(function) else { return forward() };
    match (action.as_str(), session) {
        ("delay", _) => sleep(Duration::from_millis(number)),
        ("fail", _) => return number,
        ("hang", _) => {
            while order(function).is_some_and(|(action, _)| action == "hang") {
                sleep(Duration::from_millis(5));
            }
        }
        // SAFETY: as the caller's own call.
        ("close", Some(session)) => _ = unsafe { real().C_CloseSession.map(|close| close(session)) },
        ("logout", Some(session)) => _ = unsafe { real().C_Logout.map(|logout| logout(session)) },
        _ => {}
    }
    forward()
}

/// `pass!(C_Sign(a, b))` calls the real function.
macro_rules! pass {
    ($function:ident ( $($argument:expr),* )) => {
        // SAFETY: the arguments are the caller's own.
        || unsafe { real().$function.map_or(CKR_GENERAL_ERROR, |function| function($($argument),*)) }
    };
}

unsafe extern "C" fn initialize(arguments: CK_VOID_PTR) -> CK_RV {
    call("C_Initialize", None, pass!(C_Initialize(arguments)))
}

unsafe extern "C" fn finalize(reserved: CK_VOID_PTR) -> CK_RV {
    call("C_Finalize", None, pass!(C_Finalize(reserved)))
}

unsafe extern "C" fn token_info(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) -> CK_RV {
    let result = call("C_GetTokenInfo", None, pass!(C_GetTokenInfo(slot, info)));
    if let (CKR_OK, Some((action, flags))) = (result, order("C_GetTokenInfo"))
        && action == "flags"
    {
        // SAFETY: the real function has just written there.
        unsafe { (*info).flags |= flags };
    }
    result
}

unsafe extern "C" fn open_session(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: CK_VOID_PTR,
    notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    call("C_OpenSession", None, pass!(C_OpenSession(slot, flags, application, notify, session)))
}

unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    length: CK_ULONG,
) -> CK_RV {
    call("C_Login", Some(session), pass!(C_Login(session, user, pin, length)))
}

unsafe extern "C" fn sign_init(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    call("C_SignInit", Some(session), pass!(C_SignInit(session, mechanism, key)))
}

unsafe extern "C" fn sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    length: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_length: CK_ULONG_PTR,
) -> CK_RV {
    // How long a signature is, a module knows without its token.
    if signature.is_null() && order("C_Sign").is_some_and(|(action, _)| action == "delay") {
        return pass!(C_Sign(session, data, length, signature, signature_length))();
    }
    call("C_Sign", Some(session), pass!(C_Sign(session, data, length, signature, signature_length)))
}
