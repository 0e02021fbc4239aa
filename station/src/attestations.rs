//! Which device CAs are registered with which account of the device-management platform, as somebody has attested. A
//! device whose CA its platform does not know is refused there, and nothing at the factory would show it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use data_encoding::HEXLOWER;
use factory_journal::JournalError;

use crate::{
    commands::Turn,
    record::{Record, RegistrationAttested},
};

/// What is attested of each CA, by its certificate's SHA-256 and the account's id: the newest statement.
pub type Statements = BTreeMap<([u8; 32], String), RegistrationAttested>;

/// No statement allows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nobody has attested that the CA certificate with SHA-256 {fingerprint} is registered with {account}: upload it there, \
     then say so (stationctl attest)"
)]
pub struct NotAttested {
    fingerprint: String,
    account: String,
}

/// All that was attested; cheap to clone.
#[derive(Clone)]
pub struct Attestations {
    statements: Arc<Mutex<Statements>>,
    // Held while a statement is made durable, so that the newest record is the newest statement.
    stating: Arc<tokio::sync::Mutex<()>>,
}

impl Attestations {
    /// Goes on with what the journal's books say.
    pub fn new(statements: Statements) -> Self {
        Self { statements: Arc::new(Mutex::new(statements)), stating: Arc::default() }
    }

    /// Keeps a statement durably.
    ///
    /// # Errors
    /// The journal takes nothing more.
    pub async fn attest(&self, turn: &Turn, stated: RegistrationAttested) -> Result<(), JournalError> {
        let _alone = self.stating.lock().await;
        turn.commit(Some(Record::RegistrationAttested(stated.clone()))).await?;
        self.lock().insert((stated.ca_fingerprint, stated.account.clone()), stated);
        Ok(())
    }

    /// Says whether the CA is known to be registered with the account; with any, where a device is yet to be claimed.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, ca_fingerprint: &[u8], account: Option<&str>) -> Result<(), NotAttested> {
        let statements = self.lock();
        let mut registered = statements.values().filter(|stated| stated.registered);
        let is_it = |stated: &RegistrationAttested| {
            stated.ca_fingerprint == ca_fingerprint && account.is_none_or(|account| account == stated.account)
        };
        if registered.any(is_it) {
            return Ok(());
        }
        Err(NotAttested {
            fingerprint: HEXLOWER.encode(ca_fingerprint),
            account: account.map_or_else(|| "its account".to_owned(), |account| format!("account {account}")),
        })
    }

    /// The newest statement of each CA and account.
    pub fn list(&self) -> Vec<RegistrationAttested> {
        self.lock().values().cloned().collect()
    }

    // No step under this lock can fail half-way.
    fn lock(&self) -> MutexGuard<'_, Statements> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use uuid::Uuid;

    use super::*;

    fn attested(statements: &[(u8, &str, bool)]) -> Attestations {
        let stated = statements.iter().map(|(ca, account, registered)| {
            let stated = RegistrationAttested {
                command: Uuid::nil(),
                ca_fingerprint: [*ca; 32],
                account: (*account).to_owned(),
                registered: *registered,
                statement: "seen in the portal".to_owned(),
                time: SystemTime::UNIX_EPOCH,
            };
            ((stated.ca_fingerprint, stated.account.clone()), stated)
        });
        Attestations::new(stated.collect())
    }

    #[test]
    fn the_newest_statement_counts_for_its_ca_and_account() {
        let statements = [(1, "acme", true), (2, "other", true), (3, "acme", true), (3, "acme", false)];
        let attestations = attested(&statements);
        let check = |ca: u8, account: Option<&str>, wanted: bool| {
            assert_eq!(attestations.check(&[ca; 32], account).is_ok(), wanted, "{ca} {account:?}");
        };
        check(1, None, true);
        check(1, Some("acme"), true);
        check(1, Some("other"), false);
        check(2, Some("other"), true);
        check(3, None, false);
        check(4, None, false);
        assert_eq!(
            attestations.check(&[3; 32], Some("acme")).unwrap_err().to_string(),
            format!(
                "nobody has attested that the CA certificate with SHA-256 {} is registered with account acme: upload it \
                 there, then say so (stationctl attest)",
                "03".repeat(32)
            )
        );
    }
}
