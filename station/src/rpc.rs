//! The MES API. Here wire messages become commands and answers become wire messages; no wire type goes
//! further in.

use std::{
    collections::{BTreeMap, HashSet},
    pin::Pin,
    sync::Arc,
    time::SystemTime,
};

use factory_journal::JournalError;
use factory_proto::{
    ids::{NestName, OrderId},
    station::{self as messages, ErrorReason, station_server},
};
use tokio::task::spawn_blocking;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use self::access::HungUp;
use crate::{
    commands::to_the_end,
    health::{self, parts::Parts},
    line::offline::OfflineError,
    nest::{Nest, Shared, Start},
    preflight,
    provenance::Trouble,
    recipe::{Recipe, template},
    record::{OrderOpened, RunId},
    unit_list::UnitList,
    units::Unit,
};

pub mod access;
mod audit;
pub mod command;
pub mod deadline;
mod frame;
pub mod page;
pub mod refusal;
pub mod watch;
pub mod wire;

use refusal::{Refusal, refused};

/// Serves `factory.station.v1.Station`; cheap to clone.
#[derive(Clone)]
pub struct StationService {
    /// The station's name.
    pub name: NestName,
    /// The nests by name.
    pub nests: Arc<BTreeMap<NestName, Nest>>,
    /// What the nests share.
    pub shared: Shared,
    /// Whether heads of the log are signed.
    pub provenance: Trouble,
    /// Whether each part is well.
    pub parts: Parts,
    /// SHA-256 of the station file.
    pub configuration: [u8; 32],
    /// When the daemon was started.
    pub started: SystemTime,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl station_server::Station for StationService {
    async fn open_work_order(
        &self,
        request: Request<messages::OpenWorkOrderRequest>,
    ) -> Answer<messages::OpenWorkOrderResponse> {
        let open = command::OpenOrder::try_from(request.into_inner())?;
        let recipe = self.shared.recipes.named(&open.recipe).map_err(refused)?;
        if let Some(list) = &open.units {
            check_units(recipe, &open.order, list)?;
        }
        let order = OrderOpened {
            order: open.order,
            recipe: open.recipe,
            recipe_digest: recipe.digest,
            quantity: open.quantity,
            units: open.units.as_ref().map(|list| list.digest().into()),
        };
        if let Some(trouble) = preflight::trouble(&self.shared.journal).map_err(refused)? {
            let refusal = Refusal::of(ErrorReason::StationNotReady);
            return Err(refusal.says(&format!("no work order is opened: {trouble}")));
        }
        let Shared { orders, signer, commands, .. } = &self.shared;
        let account = recipe.provision.connection.account();
        let turn = commands.begin(open.command).await.map_err(refused)?;
        let order = orders.open(turn, order, open.units, &open.signed, signer, account).await;
        let order = order.map_err(refused)?;
        Ok(Response::new(messages::OpenWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn start_unit(
        &self,
        request: Request<messages::StartUnitRequest>,
    ) -> Answer<messages::StartUnitResponse> {
        let hung_up: Option<HungUp> = request.extensions().get().cloned();
        let start = command::StartUnit::try_from(request.into_inner())?;
        let run = RunId::of_command(start.command.id);
        let turn = self.shared.commands.begin(start.command).await.map_err(refused)?;
        if !turn.is_again() {
            let nest = self.nests.get(&start.nest).ok_or_else(|| no_nest(&start.nest))?;
            let start = Start { turn, run, order: start.order, serial: start.serial, values: start.values };
            // Nobody waits for a unit whose caller has gone before the line's controller had answered.
            let started = match hung_up {
                Some(hung_up) => hung_up.or(nest.start(start)).await?,
                None => nest.start(start).await,
            };
            started.map_err(refused)?;
        }
        Ok(Response::new(messages::StartUnitResponse { run_id: run.to_string() }))
    }

    async fn abort_unit(
        &self,
        request: Request<messages::AbortUnitRequest>,
    ) -> Answer<messages::AbortUnitResponse> {
        let abort = command::Abort::try_from(request.into_inner())?;
        let nest = match self.find(abort.run) {
            Ok(unit) => unit.closed.is_none().then(|| self.nests.get(&unit.opened.nest).cloned()).flatten(),
            // It may be one that waits for the controller's leave, which is no run yet.
            Err(unknown) => Some(self.asking(abort.run).await.ok_or(unknown)?),
        };
        let turn = self.shared.commands.begin(abort.command).await.map_err(refused)?;
        to_the_end(async move {
            // Known, and over already: nothing is left to abort.
            if let Some(nest) = nest {
                tracing::info!(run = %abort.run, reason = abort.reason, "abort asked for");
                nest.abort(abort.run, abort.reason).await;
            }
            turn.commit(None).await
        })
        .await
        .map_err(refused)?;
        Ok(Response::new(messages::AbortUnitResponse {}))
    }

    async fn release_unit(
        &self,
        request: Request<messages::ReleaseUnitRequest>,
    ) -> Answer<messages::ReleaseUnitResponse> {
        let (command, released) = command::release(request.into_inner())?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        if !turn.is_again() {
            tracing::info!(serial = %released.serial, reason = released.reason, "release asked for");
            let orders = self.shared.orders.clone();
            to_the_end(async move { orders.release(&turn, released).await }).await.map_err(refused)?;
        }
        Ok(Response::new(messages::ReleaseUnitResponse {}))
    }

    async fn dispose_unit(
        &self,
        request: Request<messages::DisposeUnitRequest>,
    ) -> Answer<messages::DisposeUnitResponse> {
        let (command, disposed) = command::dispose(request.into_inner())?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        if !turn.is_again() {
            tracing::info!(serial = %disposed.serial, disposition = %disposed.disposition, "disposed");
            let (orders, signer) = (self.shared.orders.clone(), self.shared.signer.clone());
            // The signer and the log shall say the same, so it is not given up between the two.
            to_the_end(async move { orders.dispose(&turn, disposed, &signer).await })
                .await
                .map_err(refused)?;
        }
        Ok(Response::new(messages::DisposeUnitResponse {}))
    }

    async fn get_unit(
        &self,
        request: Request<messages::GetUnitRequest>,
    ) -> Answer<messages::GetUnitResponse> {
        let run = command::run_id(&request.into_inner().run_id)?;
        let unit = wire::unit(&self.name, &self.find(run)?);
        Ok(Response::new(messages::GetUnitResponse { unit: Some(unit) }))
    }

    async fn list_units(
        &self,
        request: Request<messages::ListUnitsRequest>,
    ) -> Answer<messages::ListUnitsResponse> {
        let list = command::List::try_from(request.into_inner())?;
        let units = self.shared.units.clone();
        let page = spawn_blocking(move || list.selection.page(&units, list.from, list.size)).await;
        let page = page.unwrap_or(Err(JournalError::Closed)).map_err(refused)?;
        Ok(Response::new(messages::ListUnitsResponse {
            units: page.units.iter().map(|unit| wire::unit(&self.name, unit)).collect(),
            next_page_token: page.next.map_or_else(String::new, |next| list.digest.token(next)),
        }))
    }

    async fn attest_registration(
        &self,
        request: Request<messages::AttestRegistrationRequest>,
    ) -> Answer<messages::AttestRegistrationResponse> {
        let (command, stated) = command::attest(request.into_inner())?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        if !turn.is_again() {
            tracing::info!(account = stated.account, registered = stated.registered, "registration attested");
            let attestations = self.shared.attestations.clone();
            to_the_end(async move { attestations.attest(&turn, stated).await }).await.map_err(refused)?;
        }
        Ok(Response::new(messages::AttestRegistrationResponse {}))
    }

    async fn run_preflight(
        &self,
        _: Request<messages::RunPreflightRequest>,
    ) -> Answer<messages::RunPreflightResponse> {
        let checks = preflight::look(&self.shared, self.nests.values()).await.map_err(refused)?;
        let attested = self.shared.attestations.list();
        Ok(Response::new(messages::RunPreflightResponse {
            checks: checks.into_iter().map(wire::check).collect(),
            registrations: attested.iter().map(wire::registration).collect(),
        }))
    }

    async fn get_yields(
        &self,
        request: Request<messages::GetYieldsRequest>,
    ) -> Answer<messages::GetYieldsResponse> {
        let asked = command::yields(request.into_inner())?;
        let (journal, units) = (self.shared.journal.clone(), self.shared.units.clone());
        let survey = spawn_blocking(move || asked.survey(&journal, &units)).await;
        let survey = survey.map_err(|_| Status::internal("the runs could not be looked at"))?;
        Ok(Response::new(wire::yields(&survey.map_err(refused)?)))
    }

    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<messages::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<messages::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let wanted = watch::Wanted::try_from(request.into_inner())?;
        let Shared { journal, events, units, .. } = &self.shared;
        let watcher = watch::Watcher::new(journal, events, units, wanted)?;
        let (to_watcher, stream) = tokio::sync::mpsc::channel(1);
        let nests = self.nests.clone();
        tokio::spawn(async move { watcher.tell(nests.values(), to_watcher).await });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(stream))))
    }

    async fn describe_station(
        &self,
        request: Request<messages::DescribeStationRequest>,
    ) -> Answer<messages::DescribeStationResponse> {
        let mut nests = Vec::new();
        for (name, nest) in &*self.nests {
            let look = nest.look().await;
            nests.push(wire::line::nest(name, look));
        }
        let standing = self.shared.backlog.standing();
        let line = &self.shared.line;
        Ok(Response::new(messages::DescribeStationResponse {
            station: self.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nests,
            work_orders: self.shared.orders.list().iter().map(wire::order).collect(),
            recipes: self.shared.recipes.all().map(|(name, _)| name.to_string()).collect(),
            unacknowledged_results: standing.results,
            oldest_unacknowledged: standing.oldest.map(Into::into),
            provenance_trouble: self.provenance.get().unwrap_or_default(),
            refused_results: standing.refused.iter().map(wire::refused).collect(),
            journal_trouble: health::journal_trouble(&self.shared.journal).unwrap_or_default(),
            configuration_digest: self.configuration.into(),
            started: Some(self.started.into()),
            parts: self.parts.all().into_iter().map(wire::part).collect(),
            last_sequence: self.shared.journal.last().get(),
            caller: request.extensions().get().map(wire::caller),
            offline_budget: Some(self.budget()),
            controllers: line.controllers.describe().into_iter().map(wire::line::controller).collect(),
            refused_units: line.refusals.all().iter().map(wire::line::refused).collect(),
        }))
    }

    async fn list_audit_records(
        &self,
        request: Request<messages::ListAuditRecordsRequest>,
    ) -> Answer<messages::ListAuditRecordsResponse> {
        let list = command::ListAudit::try_from(request.into_inner())?;
        let journal = self.shared.journal.clone();
        // Goes through the log, as far as it must.
        let page = spawn_blocking(move || audit::page(&journal, &list)).await;
        let page = page.map_err(|_| Status::internal("the station failed; its log says why"))?;
        let (records, next) = page.map_err(refused)?;
        Ok(Response::new(messages::ListAuditRecordsResponse {
            records: records
                .into_iter()
                .map(|(sequence, audited)| wire::audited(sequence, audited))
                .collect(),
            next_page_token: next.map_or_else(String::new, |next| next.get().to_string()),
        }))
    }

    async fn load_offline_budget(
        &self,
        request: Request<messages::LoadOfflineBudgetRequest>,
    ) -> Answer<messages::LoadOfflineBudgetResponse> {
        let (command, allowance) = command::allowance(request.into_inner())?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        if !turn.is_again() {
            let offline = self.shared.line.offline.clone();
            to_the_end(async move {
                offline.grant(&allowance, "LoadOfflineBudget").await?;
                turn.commit(None).await.map_err(OfflineError::Journal)
            })
            .await
            .map_err(refused)?;
        }
        Ok(Response::new(messages::LoadOfflineBudgetResponse { offline_budget: Some(self.budget()) }))
    }
}

impl StationService {
    fn budget(&self) -> messages::OfflineBudget {
        let offline = &self.shared.line.offline;
        wire::line::budget(offline.left(), offline.trouble())
    }

    /// The nest in which a unit waits for the controller's leave to be this run.
    async fn asking(&self, run: RunId) -> Option<Nest> {
        for nest in self.nests.values() {
            if nest.look().await.run == Some(run) {
                return Some(nest.clone());
            }
        }
        None
    }

    fn find(&self, run: RunId) -> Result<Unit, Status> {
        let unit = self.shared.units.find(run).map_err(refused)?;
        unit.ok_or_else(|| {
            Refusal::of(ErrorReason::RunUnknown)
                .about("run", run)
                .says(&format!("this station knows no run {run}"))
        })
    }
}

fn no_nest(nest: &NestName) -> Status {
    let refusal = Refusal::of(ErrorReason::NestUnknown).about("nest", nest);
    refusal.says(&format!("this station has no nest {nest}"))
}

/// Every unit of a list must be one that can be made, and have a name of its own; up to so many complaints.
const UNIT_COMPLAINTS: usize = 20;

fn check_units(recipe: &Recipe, order: &OrderId, list: &UnitList) -> Result<(), Status> {
    let mut names = HashSet::new();
    let mut complaints = Vec::new();
    for (serial, values) in list.iter() {
        let unit = template::Unit { product: &recipe.name, order, serial, values };
        let checked = recipe.check_unit(&unit).and_then(|()| recipe.identity.endpoint_name(&unit));
        let mut complain = |what| complaints.push(("unit_list".to_owned(), what));
        match checked {
            Ok(name) if names.insert(name.clone()) => continue,
            Ok(name) => complain(format!("unit {serial}: the endpoint name {name} is another unit's too")),
            Err(error) => complain(format!("unit {serial}: {error}")),
        }
        if complaints.len() == UNIT_COMPLAINTS {
            break;
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(Refusal::of_fields(complaints)) }
}
