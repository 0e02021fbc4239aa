//! The MES API. Here wire messages become commands and answers become wire messages; no wire type goes
//! further in.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::SystemTime};

use factory_journal::JournalError;
use factory_proto::{
    ids::NestName,
    station::{self as messages, ErrorReason, station_server},
};
use tokio::task::spawn_blocking;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use self::access::HungUp;
use crate::{
    callers::Caller,
    commands::{Command, to_the_end},
    health::{self, parts::Parts},
    line::offline::OfflineError,
    nest::{
        Look, Nest, Purpose, Shared, Start,
        choice::{Choice, Wanted},
    },
    preflight,
    provenance::Trouble,
    recipe::{Recipe, RecipeError},
    record::{NestAct, NestCommanded, OrderOpened, RunId},
    shelf::Shelf,
    units::Unit,
};

pub mod access;
mod audit;
mod books;
pub mod command;
pub mod deadline;
pub mod frame;
mod names;
pub mod page;
mod recipes;
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
    /// What was uploaded.
    pub shelf: Arc<Shelf>,
    /// Chooses one of them.
    pub choice: Arc<Choice>,
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
        let _steady = self.shelf.steady().await;
        let recipe = self.recipe_of(&open).map_err(refused)?;
        let list = open.units.as_ref();
        let list = list.map(|list| names::of(&recipe, &open.order, list, &self.shared.golden)).transpose()?;
        let order = OrderOpened {
            order: open.order,
            recipe: open.recipe,
            recipe_digest: recipe.digest,
            quantity: open.quantity,
            units: open.units.as_ref().map(|list| list.digest().into()),
            // As the signer will read it.
            quota: None,
        };
        let Shared { orders, signer, commands, .. } = &self.shared;
        let account = recipe.provision.connection.account();
        let turn = commands.begin(open.command).await.map_err(refused)?;
        if !turn.is_again()
            && let Some(trouble) = preflight::trouble(&self.shared).map_err(refused)?
        {
            let refusal = Refusal::of(ErrorReason::StationNotReady);
            return Err(refusal.says(&format!("no work order is opened: {trouble}")));
        }
        // What is open stays as it is, whoever has got a name of its units since.
        if let Some(list) = &list
            && orders.get(&order.order).is_err()
        {
            names::check(orders.claims(), list)?;
        }
        let order = orders.open(turn, order, open.units, &open.signed, signer, account).await;
        let order = order.map_err(refused)?;
        Ok(Response::new(messages::OpenWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn pause_work_order(
        &self,
        request: Request<messages::PauseWorkOrderRequest>,
    ) -> Answer<messages::PauseWorkOrderResponse> {
        let (command, paused) = command::pause(request.into_inner())?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        tracing::info!(order = %paused.order, reason = paused.reason, "pause asked for");
        let orders = self.shared.orders.clone();
        let order =
            to_the_end(async move { orders.pause_or_resume(&turn, paused).await }).await.map_err(refused)?;
        Ok(Response::new(messages::PauseWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn resume_work_order(
        &self,
        request: Request<messages::ResumeWorkOrderRequest>,
    ) -> Answer<messages::ResumeWorkOrderResponse> {
        let (command, resumed) = command::resume(request.into_inner())?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        tracing::info!(order = %resumed.order, reason = resumed.reason, "resumption asked for");
        let orders = self.shared.orders.clone();
        let order =
            to_the_end(async move { orders.pause_or_resume(&turn, resumed).await }).await.map_err(refused)?;
        Ok(Response::new(messages::ResumeWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn close_work_order(
        &self,
        request: Request<messages::CloseWorkOrderRequest>,
    ) -> Answer<messages::CloseWorkOrderResponse> {
        let (command, closed) = command::close(request.into_inner())?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        tracing::info!(order = %closed.order, reason = closed.reason, "closing asked for");
        let (orders, signer) = (self.shared.orders.clone(), self.shared.signer.clone());
        let order =
            to_the_end(async move { orders.close(&turn, closed, &signer).await }).await.map_err(refused)?;
        Ok(Response::new(messages::CloseWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn reconcile_work_order(
        &self,
        request: Request<messages::ReconcileWorkOrderRequest>,
    ) -> Answer<messages::ReconcileWorkOrderResponse> {
        let asked = command::Reconcile::try_from(request.into_inner())?;
        let (orders, signer) = (&self.shared.orders, &self.shared.signer);
        let books = orders.reconcile(&asked.order, signer).await.map_err(refused)?;
        let order = orders.get(&asked.order).map_err(refused)?;
        Ok(Response::new(books::page(&order, &books, asked.from, asked.size)))
    }

    async fn upload_recipe(
        &self,
        request: Request<Streaming<messages::UploadRecipeRequest>>,
    ) -> Answer<messages::UploadRecipeResponse> {
        let caller = caller(&request);
        let digest = recipes::upload(&self.shelf, request.into_inner(), caller).await?;
        Ok(Response::new(messages::UploadRecipeResponse { recipe_digest: digest.to_vec() }))
    }

    async fn list_recipes(
        &self,
        _: Request<messages::ListRecipesRequest>,
    ) -> Answer<messages::ListRecipesResponse> {
        let recipes = self.shelf.list().into_iter().map(recipes::description).collect();
        Ok(Response::new(messages::ListRecipesResponse { recipes }))
    }

    async fn activate_recipe(
        &self,
        request: Request<messages::ActivateRecipeRequest>,
    ) -> Answer<messages::ActivateRecipeResponse> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        let (recipe, digest) = (request.recipe.clone(), request.recipe_digest.clone());
        let (command, key) = command::recipe(&mut request, &recipe, &digest)?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        if !turn.is_again() {
            let shelf = self.shelf.clone();
            to_the_end(async move { shelf.activate(&turn, key, caller).await }).await.map_err(refused)?;
        }
        Ok(Response::new(messages::ActivateRecipeResponse {}))
    }

    async fn remove_recipe(
        &self,
        request: Request<messages::RemoveRecipeRequest>,
    ) -> Answer<messages::RemoveRecipeResponse> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        let (recipe, digest) = (request.recipe.clone(), request.recipe_digest.clone());
        let (command, key) = command::recipe(&mut request, &recipe, &digest)?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        if !turn.is_again() {
            let shelf = self.shelf.clone();
            to_the_end(async move { shelf.remove(&turn, key, caller).await }).await.map_err(refused)?;
        }
        Ok(Response::new(messages::RemoveRecipeResponse {}))
    }

    async fn start_unit(
        &self,
        request: Request<messages::StartUnitRequest>,
    ) -> Answer<messages::StartUnitResponse> {
        let hung_up: Option<HungUp> = request.extensions().get().cloned();
        let start = command::StartUnit::try_from(request.into_inner())?;
        let command::StartUnit { command, nest, order, serial, values } = start;
        let run = RunId::of_command(command.id);
        let starting = async {
            let Some(name) = nest else {
                let wanted = Wanted { command, run, order, serial, values };
                return self.choice.start(&self.nests, wanted).await.map_err(refused);
            };
            let turn = self.shared.commands.begin(command).await.map_err(refused)?;
            if !turn.is_again() {
                let purpose = Purpose::Product { order, values };
                let start = Start { turn, run, serial, purpose };
                self.nest(&name)?.start(start).await.map_err(refused)?;
            }
            Ok(name)
        };
        // Nobody waits for a unit whose caller has gone before the line's controller had answered.
        let nest = until_hung_up(hung_up, starting).await?;
        Ok(Response::new(messages::StartUnitResponse { run_id: run.to_string(), nest: nest.to_string() }))
    }

    async fn start_golden_unit(
        &self,
        request: Request<messages::StartGoldenUnitRequest>,
    ) -> Answer<messages::StartGoldenUnitResponse> {
        let hung_up: Option<HungUp> = request.extensions().get().cloned();
        let (command, serial, nest) = command::golden(request.into_inner())?;
        let run = RunId::of_command(command.id);
        let starting = async {
            let turn = self.shared.commands.begin(command).await.map_err(refused)?;
            if !turn.is_again() {
                let start = Start { turn, run, serial, purpose: Purpose::Golden };
                self.nest(&nest)?.start(start).await.map_err(refused)?;
            }
            Ok(messages::StartGoldenUnitResponse { run_id: run.to_string() })
        };
        until_hung_up(hung_up, starting).await.map(Response::new)
    }

    async fn park_nest(
        &self,
        request: Request<messages::ParkNestRequest>,
    ) -> Answer<messages::ParkNestResponse> {
        let caller = caller(&request);
        let (command, parked) = command::park(request.into_inner(), caller)?;
        self.by_hand(command, parked).await?;
        Ok(Response::new(messages::ParkNestResponse {}))
    }

    async fn enable_nest(
        &self,
        request: Request<messages::EnableNestRequest>,
    ) -> Answer<messages::EnableNestResponse> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        let nest = request.nest.clone();
        let (command, commanded) = command::nest(&mut request, &nest, NestAct::Enable, caller)?;
        self.by_hand(command, commanded).await?;
        Ok(Response::new(messages::EnableNestResponse {}))
    }

    async fn clear_nest(
        &self,
        request: Request<messages::ClearNestRequest>,
    ) -> Answer<messages::ClearNestResponse> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        let nest = request.nest.clone();
        let (command, commanded) = command::nest(&mut request, &nest, NestAct::Clear, caller)?;
        let look = self.by_hand(command, commanded).await?;
        Ok(Response::new(messages::ClearNestResponse { parked: look.parked.unwrap_or_default() }))
    }

    async fn identify_nest(
        &self,
        request: Request<messages::IdentifyNestRequest>,
    ) -> Answer<messages::IdentifyNestResponse> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        let nest = request.nest.clone();
        let (command, commanded) = command::nest(&mut request, &nest, NestAct::Identify, caller)?;
        self.by_hand(command, commanded).await?;
        Ok(Response::new(messages::IdentifyNestResponse {}))
    }

    async fn abort_unit(
        &self,
        request: Request<messages::AbortUnitRequest>,
    ) -> Answer<messages::AbortUnitResponse> {
        let abort = command::Abort::try_from(request.into_inner())?;
        let turn = self.shared.commands.begin(abort.command).await.map_err(refused)?;
        if turn.is_again() {
            return Ok(Response::new(messages::AbortUnitResponse {}));
        }
        let nest = match self.find(abort.run) {
            Ok(unit) => unit.closed.is_none().then(|| self.nests.get(&unit.opened.nest).cloned()).flatten(),
            // It may be one that waits for the controller's leave, which is no run yet.
            Err(unknown) => Some(self.asking(abort.run).await.ok_or(unknown)?),
        };
        to_the_end(async move {
            let Some(nest) = nest else {
                // Known, and over already: nothing is left to abort.
                return turn.commit(None).await.map(drop);
            };
            tracing::info!(run = %abort.run, reason = abort.reason, "abort asked for");
            nest.abort(turn, abort.run, abort.reason).await
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
            recipes: self.shared.recipes.all().iter().map(|recipe| recipe.name.to_string()).collect(),
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

    /// The recipe that an order is to be opened with: the one that it names, or was opened with, or the active one.
    fn recipe_of(&self, open: &command::OpenOrder) -> Result<Arc<Recipe>, RecipeError> {
        let recipes = &self.shared.recipes;
        let before = self.shared.orders.get(&open.order).ok();
        let before = before.filter(|order| order.opened.recipe == open.recipe);
        match open.digest.or(before.map(|order| order.opened.recipe_digest)) {
            Some(digest) => recipes.get(&open.recipe, &digest),
            None => recipes.named(&open.recipe),
        }
    }

    fn nest(&self, name: &NestName) -> Result<&Nest, Status> {
        self.nests.get(name).ok_or_else(|| no_nest(name))
    }

    /// Does something with a nest, unless that was done; gives what it is like then.
    async fn by_hand(&self, command: Command, commanded: NestCommanded) -> Result<Look, Status> {
        let nest = self.nest(&commanded.nest)?;
        let turn = self.shared.commands.begin(command).await.map_err(refused)?;
        if turn.is_again() {
            return Ok(nest.look().await);
        }
        nest.command(turn, commanded).await.map_err(refused)
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

/// Starts something for somebody who waits for it.
async fn until_hung_up<T>(
    hung_up: Option<HungUp>,
    starting: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match hung_up {
        Some(hung_up) => hung_up.or(starting).await?,
        None => starting.await,
    }
}

fn no_nest(nest: &NestName) -> Status {
    let refusal = Refusal::of(ErrorReason::NestUnknown).about("nest", nest);
    refusal.says(&format!("this station has no nest {nest}"))
}

/// Who calls, for people.
fn caller<T>(request: &Request<T>) -> String {
    let caller = request.extensions().get::<Caller>();
    caller.map_or_else(|| "an unknown caller".to_owned(), |caller| caller.name().to_owned())
}
