//! A signed offline allowance that is loaded.

use factory_proto::station as messages;
use tonic::Status;

use super::fields::Fields;
use crate::commands::Command;

/// A signed allowance, which is read where its key is.
pub fn allowance(mut request: messages::LoadOfflineBudgetRequest) -> Result<(Command, String), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let given = (!request.allowance.trim().is_empty()).then_some(request.allowance);
    let allowance = fields.check("allowance", given.ok_or("is empty: give what the MES signed"));
    fields.finish(command.zip(allowance))
}
