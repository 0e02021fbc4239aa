//! How a device reaches its server, and whose it is (FCU facts, 1.4; FCC protocol, section 6).

use std::path::PathBuf;

use factory_fixtures::fcc::names;
use factory_settings::{Table, path, text};

use super::{credential, source::Sources, template::Template};

/// How a device reaches its server, and whose it is.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Whether a bootstrap server tells it where to connect.
    pub bootstraps: bool,
    /// Whose it is.
    pub ownership: Ownership,
    /// `coaps://` or `coap://`.
    pub server_uri: Template,
    /// The CA of the server, DER.
    pub server_ca: Vec<u8>,
}

/// Whose a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Whoever claims it first.
    FirstToClaim,
    /// This account's.
    PreAssigned {
        /// Its id, which the server's address names too.
        account: String,
    },
}

impl Connection {
    /// What its items are called.
    pub fn names(&self) -> &'static names::Connection {
        if self.bootstraps { &names::BOOTSTRAP } else { &names::LWM2M }
    }

    /// The account that it is assigned to.
    pub fn account(&self) -> Option<&str> {
        match &self.ownership {
            Ownership::FirstToClaim => None,
            Ownership::PreAssigned { account } => Some(account),
        }
    }

    /// Checks an address that is to be the server's.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn check_uri(&self, uri: &str) -> Result<(), String> {
        let rest = ["coaps://", "coap://"].iter().find_map(|scheme| uri.strip_prefix(scheme));
        if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with([':', '/', '?'])) {
            return Err("must begin with coaps:// or coap://, in lower case, and a host".to_owned());
        }
        if let Some(odd) = uri.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("holds {odd:?}, which no address can hold"));
        }
        let named = account(uri);
        match (&self.ownership, named) {
            (Ownership::FirstToClaim, None) => Ok(()),
            (Ownership::FirstToClaim, Some(_)) => {
                Err("must not name an account (aid): the owner is yet to claim the device".to_owned())
            }
            (Ownership::PreAssigned { account }, None) => Err(format!(
                "must name the account that the device is assigned to, as in \"…?aid={account}\""
            )),
            // The device compares all that follows with the OU of its certificate.
            (Ownership::PreAssigned { account }, Some(named)) if named != account => Err(format!(
                "ends with the account {named:?}, account-id is {account:?}; the account must stand last"
            )),
            (Ownership::PreAssigned { .. }, Some(_)) => Ok(()),
        }
    }
}

/// All that follows `aid=`, as the device takes it.
fn account(uri: &str) -> Option<&str> {
    let behind = |mark| uri.split_once(mark).map(|(_, account)| account);
    behind("&aid=").or_else(|| behind("?aid="))
}

/// Reads it.
pub(super) fn written(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<Connection> {
    let mode = file.or("connection", "bootstrap".to_owned(), text);
    let ownership = file.or("ownership", "first-to-claim".to_owned(), text);
    let account: Option<Option<String>> = file.optional("account-id", text);
    let server_uri: Option<Template> = file.required("server-uri", text);
    let server_ca: Option<PathBuf> = file.required("server-ca", path);

    let bootstraps = match mode?.as_str() {
        "bootstrap" => Some(true),
        "lwm2m" => Some(false),
        _ => {
            file.complain("connection", "must be \"bootstrap\", or \"lwm2m\" (direct)");
            None
        }
    };
    let ownership = self::ownership(file, &ownership?, account?);
    if bootstraps == Some(false) && ownership == Some(Ownership::FirstToClaim) {
        file.complain(
            "ownership",
            "must be \"pre-assigned\" for a direct connection (lwm2m): a device can only be claimed by way of a \
             bootstrap server",
        );
    }
    let server_ca = sources.parsed(file, "server-ca", &server_ca?, credential::authority);
    let connection = Connection {
        bootstraps: bootstraps?,
        ownership: ownership?,
        server_uri: server_uri?,
        server_ca: server_ca?,
    };
    if let Ok(uri) = connection.server_uri.fill_with(|_| None) {
        connection.check_uri(&uri).inspect_err(|reason| file.complain("server-uri", reason)).ok()?;
    }
    Some(connection)
}

fn ownership(file: &Table<'_>, ownership: &str, account: Option<String>) -> Option<Ownership> {
    match (ownership, account) {
        ("first-to-claim", None) => Some(Ownership::FirstToClaim),
        ("first-to-claim", Some(_)) => {
            file.complain("account-id", "is only for ownership \"pre-assigned\"; leave it out");
            None
        }
        ("pre-assigned", Some(account)) => {
            // It becomes the OU of the device's certificate.
            if account.is_empty() || account.len() > 64 || !account.bytes().all(|b| b.is_ascii_alphanumeric())
            {
                file.complain("account-id", "must be 1 to 64 letters and digits");
                return None;
            }
            Some(Ownership::PreAssigned { account })
        }
        ("pre-assigned", None) => {
            file.complain(
                "account-id",
                "is missing: a pre-assigned device needs the account that it belongs to",
            );
            None
        }
        _ => {
            file.complain("ownership", "must be \"first-to-claim\" or \"pre-assigned\"");
            None
        }
    }
}
