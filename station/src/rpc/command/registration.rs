//! What is stated of the registration of a CA.

use std::time::SystemTime;

use factory_proto::station as messages;
use tonic::Status;

use super::fields::Fields;
use crate::{commands::Command, record::RegistrationAttested};

/// What is stated of a CA's registration.
pub fn attest(
    mut request: messages::AttestRegistrationRequest,
) -> Result<(Command, RegistrationAttested), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let ca_fingerprint = <[u8; 32]>::try_from(request.ca_fingerprint);
    let ca_fingerprint = fields.check(
        "ca_fingerprint",
        ca_fingerprint.map_err(|it| format!("has {} bytes, must have 32", it.len())),
    );
    let is_account =
        |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let account = Some(request.account_id).filter(|text| is_account(text));
    let account = fields.check("account_id", account.ok_or("must be 1 to 64 letters and digits"));
    if request.statement.trim().is_empty() {
        fields.check::<()>("statement", Err("must say how that is known"));
    }
    let statement = fields.short("statement", request.statement);
    let registered = request.registered;
    let time = SystemTime::now();
    let stated = || {
        let command = command?;
        let stated = RegistrationAttested {
            command: command.id,
            ca_fingerprint: ca_fingerprint?,
            account: account?,
            registered,
            statement: statement?,
            time,
        };
        Some((command, stated))
    };
    fields.finish(stated())
}
