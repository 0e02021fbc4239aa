//! What is asked of one unit or its run: to start it, to abort it, to release it, to dispose of it.

use factory_proto::{
    ids::{NestName, OrderId, Serial},
    station as messages,
};
use tonic::Status;

use super::fields::Fields;
use crate::{
    commands::Command,
    recipe::template::Values,
    record::{RunId, UnitDisposed, UnitReleased},
};

/// Start a unit.
pub struct StartUnit {
    /// The command.
    pub command: Command,
    /// In which nest, if that was said.
    pub nest: Option<NestName>,
    /// For which order.
    pub order: OrderId,
    /// Which board.
    pub serial: Serial,
    /// What it is given for itself.
    pub values: Values,
}

impl TryFrom<messages::StartUnitRequest> for StartUnit {
    type Error = Status;
    fn try_from(mut request: messages::StartUnitRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let command = fields.command(&mut request);
        let order = fields.parse("work_order", &request.work_order);
        let serial = fields.parse("serial", &request.serial);
        let nest = match request.nest.as_str() {
            "" => Some(None),
            nest => fields.parse("nest", nest).map(Some),
        };
        let mut values = Values::default();
        for (name, value) in &request.values {
            fields.check(&format!("values[{name:?}]"), values.add(name, value));
        }
        let start = || Some(Self { command: command?, nest: nest?, order: order?, serial: serial?, values });
        fields.finish(start())
    }
}

/// A golden unit is started, in which nest.
pub fn golden(mut request: messages::StartGoldenUnitRequest) -> Result<(Command, Serial, NestName), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let serial = fields.parse("serial", &request.serial);
    let nest = fields.parse("nest", &request.nest);
    let golden = || Some((command?, serial?, nest?));
    fields.finish(golden())
}

/// Stop a run.
pub struct Abort {
    /// The command.
    pub command: Command,
    /// Which.
    pub run: RunId,
    /// Why.
    pub reason: String,
}

impl TryFrom<messages::AbortUnitRequest> for Abort {
    type Error = Status;
    fn try_from(mut request: messages::AbortUnitRequest) -> Result<Self, Status> {
        let mut fields = Fields::default();
        let command = fields.command(&mut request);
        let run = fields.parse("run_id", &request.run_id);
        let reason = fields.reason(request.reason);
        let abort = || Some(Self { command: command?, run: run?, reason: reason? });
        fields.finish(abort())
    }
}

/// The release of a quarantined unit.
pub fn release(mut request: messages::ReleaseUnitRequest) -> Result<(Command, UnitReleased), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let serial = fields.parse("serial", &request.serial);
    if request.reason.trim().is_empty() {
        fields.check::<()>("reason", Err("must say what was done to the unit"));
    }
    let reason = fields.reason(request.reason);
    let reworked = request.reworked;
    let release = || {
        let command = command?;
        let released = UnitReleased { command: command.id, serial: serial?, reason: reason?, reworked };
        Some((command, released))
    };
    fields.finish(release())
}

/// What became of a unit.
pub fn dispose(mut request: messages::DisposeUnitRequest) -> Result<(Command, UnitDisposed), Status> {
    let mut fields = Fields::default();
    let command = fields.command(&mut request);
    let serial = fields.parse("serial", &request.serial);
    let disposition = fields.check("disposition", request.disposition().try_into());
    let disposed = || {
        let command = command?;
        let disposed = UnitDisposed { command: command.id, serial: serial?, disposition: disposition? };
        Some((command, disposed))
    };
    fields.finish(disposed())
}

/// The id of a run.
pub fn run_id(text: &str) -> Result<RunId, Status> {
    let mut fields = Fields::default();
    let run = fields.parse("run_id", text);
    fields.finish(run)
}
