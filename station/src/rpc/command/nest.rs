//! What is done with a nest by hand.

use std::time::SystemTime;

use factory_proto::station as messages;
use tonic::Status;

use super::fields::Fields;
use crate::{
    commands::Command,
    record::{NestAct, NestCommanded},
};

/// Of a person.
const LONGEST_NAME: usize = 64;

/// A nest is parked, by whom the request or else the connection says.
pub fn park(
    mut request: messages::ParkNestRequest,
    caller: String,
) -> Result<(Command, NestCommanded), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let reason = fields.given_reason(request.reason);
    let by = match request.by.trim() {
        "" => Some(caller),
        by if by.chars().count() <= LONGEST_NAME => Some(by.to_owned()),
        _ => fields.check("by", Err(format!("is longer than {LONGEST_NAME} characters"))),
    };
    commanded(fields, command, &request.nest, NestAct::Park, by, reason)
}

/// Something else is done with a nest.
pub fn nest<C: factory_proto::command::Command>(
    request: &mut C,
    nest: &str,
    act: NestAct,
    by: String,
) -> Result<(Command, NestCommanded), Status> {
    let mut fields = Fields::default();
    let command = fields.command(request);
    commanded(fields, command, nest, act, Some(by), Some(String::new()))
}

fn commanded(
    mut fields: Fields,
    command: Option<Command>,
    nest: &str,
    act: NestAct,
    by: Option<String>,
    reason: Option<String>,
) -> Result<(Command, NestCommanded), Status> {
    let nest = fields.parse("nest", nest);
    let commanded = || {
        let (command, nest, by, reason) = (command?, nest?, by?, reason?);
        let id = command.id;
        Some((command, NestCommanded { command: id, nest, act, by, reason, at: SystemTime::now() }))
    };
    fields.finish(commanded())
}
