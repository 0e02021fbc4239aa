//! The MES API. Here wire messages become commands and answers become wire messages; no wire type goes
//! further in.

use std::{
    collections::{BTreeMap, HashSet},
    pin::Pin,
    sync::Arc,
};

use factory_journal::JournalError;
use factory_proto::{
    ids::{NestName, OrderId},
    station::{self as messages, station_server},
};
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    health,
    nest::{HandError, Look, Nest, Shared, StartError, choice::Choice},
    orders::OrderError,
    provenance::Trouble,
    recipe::{Recipe, RecipeError, template},
    record::{NestAct, NestCommanded, OrderOpened, RunId},
    shelf::Shelf,
    signer::SignerError,
    unit_list::UnitList,
    units::Unit,
};

mod books;
mod caller;
pub mod command;
mod recipes;
pub mod wire;

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
        let recipe = self.recipe_of(&open).map_err(recipe_refused)?;
        if let Some(list) = &open.units {
            check_units(&recipe, &open.order, list)?;
        }
        let order = OrderOpened {
            order: open.order,
            recipe: open.recipe,
            recipe_digest: recipe.digest,
            quantity: open.quantity,
            units: open.units.as_ref().map(|list| list.digest().into()),
            // As the signer will read it.
            quota: None,
        };
        let (orders, signer) = (&self.shared.orders, &self.shared.signer);
        let order = orders.open(order, open.units, &open.signed, signer).await.map_err(order_refused)?;
        Ok(Response::new(messages::OpenWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn pause_work_order(
        &self,
        request: Request<messages::PauseWorkOrderRequest>,
    ) -> Answer<messages::PauseWorkOrderResponse> {
        let paused = command::pause(request.into_inner())?;
        tracing::info!(order = %paused.order, reason = paused.reason, "pause asked for");
        let order = self.shared.orders.pause_or_resume(paused).await.map_err(order_refused)?;
        Ok(Response::new(messages::PauseWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn resume_work_order(
        &self,
        request: Request<messages::ResumeWorkOrderRequest>,
    ) -> Answer<messages::ResumeWorkOrderResponse> {
        let resumed = command::resume(request.into_inner())?;
        tracing::info!(order = %resumed.order, reason = resumed.reason, "resumption asked for");
        let order = self.shared.orders.pause_or_resume(resumed).await.map_err(order_refused)?;
        Ok(Response::new(messages::ResumeWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn close_work_order(
        &self,
        request: Request<messages::CloseWorkOrderRequest>,
    ) -> Answer<messages::CloseWorkOrderResponse> {
        let closed = command::close(request.into_inner())?;
        tracing::info!(order = %closed.order, reason = closed.reason, "closing asked for");
        let order = self.shared.orders.close(closed, &self.shared.signer).await.map_err(order_refused)?;
        Ok(Response::new(messages::CloseWorkOrderResponse { work_order: Some(wire::order(&order)) }))
    }

    async fn reconcile_work_order(
        &self,
        request: Request<messages::ReconcileWorkOrderRequest>,
    ) -> Answer<messages::ReconcileWorkOrderResponse> {
        let asked = command::Reconcile::try_from(request.into_inner())?;
        let (orders, signer) = (&self.shared.orders, &self.shared.signer);
        let books = orders.reconcile(&asked.order, signer).await.map_err(order_refused)?;
        let order = orders.get(&asked.order).map_err(order_refused)?;
        Ok(Response::new(books::page(&order, &books, asked.from, asked.size)))
    }

    async fn upload_recipe(
        &self,
        request: Request<Streaming<messages::UploadRecipeRequest>>,
    ) -> Answer<messages::UploadRecipeResponse> {
        let caller = caller::of(&request);
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
        let caller = caller::of(&request);
        let messages::ActivateRecipeRequest { command_id, recipe, recipe_digest } = request.into_inner();
        let (key, by) = command::recipe(&command_id, &recipe, &recipe_digest, caller)?;
        self.shelf.activate(key, by).await.map_err(recipes::refused)?;
        Ok(Response::new(messages::ActivateRecipeResponse {}))
    }

    async fn remove_recipe(
        &self,
        request: Request<messages::RemoveRecipeRequest>,
    ) -> Answer<messages::RemoveRecipeResponse> {
        let caller = caller::of(&request);
        let messages::RemoveRecipeRequest { command_id, recipe, recipe_digest } = request.into_inner();
        let (key, by) = command::recipe(&command_id, &recipe, &recipe_digest, caller)?;
        self.shelf.remove(key, by).await.map_err(recipes::refused)?;
        Ok(Response::new(messages::RemoveRecipeResponse {}))
    }

    async fn start_unit(
        &self,
        request: Request<messages::StartUnitRequest>,
    ) -> Answer<messages::StartUnitResponse> {
        let (nest, start) = command::start(request.into_inner())?;
        let started = match nest {
            Some(name) => self.nest(&name)?.start(start).await.map(|run| (name, run)),
            None => self.choice.start(&self.nests, start).await,
        };
        let (nest, run) = started.map_err(start_refused)?;
        Ok(Response::new(messages::StartUnitResponse { run_id: run.to_string(), nest: nest.to_string() }))
    }

    async fn park_nest(
        &self,
        request: Request<messages::ParkNestRequest>,
    ) -> Answer<messages::ParkNestResponse> {
        let caller = caller::of(&request);
        let parked = command::park(request.into_inner(), caller)?;
        self.by_hand(parked).await?;
        Ok(Response::new(messages::ParkNestResponse {}))
    }

    async fn enable_nest(
        &self,
        request: Request<messages::EnableNestRequest>,
    ) -> Answer<messages::EnableNestResponse> {
        let caller = caller::of(&request);
        let messages::EnableNestRequest { command_id, nest } = request.into_inner();
        self.by_hand(command::nest(&command_id, &nest, NestAct::Enable, caller)?).await?;
        Ok(Response::new(messages::EnableNestResponse {}))
    }

    async fn clear_nest(
        &self,
        request: Request<messages::ClearNestRequest>,
    ) -> Answer<messages::ClearNestResponse> {
        let caller = caller::of(&request);
        let messages::ClearNestRequest { command_id, nest } = request.into_inner();
        let look = self.by_hand(command::nest(&command_id, &nest, NestAct::Clear, caller)?).await?;
        Ok(Response::new(messages::ClearNestResponse { parked: look.parked.unwrap_or_default() }))
    }

    async fn identify_nest(
        &self,
        request: Request<messages::IdentifyNestRequest>,
    ) -> Answer<messages::IdentifyNestResponse> {
        let caller = caller::of(&request);
        let messages::IdentifyNestRequest { command_id, nest } = request.into_inner();
        self.by_hand(command::nest(&command_id, &nest, NestAct::Identify, caller)?).await?;
        Ok(Response::new(messages::IdentifyNestResponse {}))
    }

    async fn abort_unit(
        &self,
        request: Request<messages::AbortUnitRequest>,
    ) -> Answer<messages::AbortUnitResponse> {
        let abort = command::Abort::try_from(request.into_inner())?;
        // Known, and over already: nothing is left to abort.
        let unit = self.find(abort.run)?;
        if let Some(nest) = self.nests.get(&unit.opened.nest).filter(|_| unit.closed.is_none()) {
            tracing::info!(run = %abort.run, reason = abort.reason, "abort asked for");
            nest.abort(abort.run, abort.reason).await;
        }
        Ok(Response::new(messages::AbortUnitResponse {}))
    }

    async fn release_unit(
        &self,
        request: Request<messages::ReleaseUnitRequest>,
    ) -> Answer<messages::ReleaseUnitResponse> {
        let released = command::release(request.into_inner())?;
        tracing::info!(serial = %released.serial, reason = released.reason, "release asked for");
        self.shared.orders.release(released).await.map_err(order_refused)?;
        Ok(Response::new(messages::ReleaseUnitResponse {}))
    }

    async fn dispose_unit(
        &self,
        request: Request<messages::DisposeUnitRequest>,
    ) -> Answer<messages::DisposeUnitResponse> {
        let disposed = command::dispose(&request.into_inner())?;
        tracing::info!(serial = %disposed.serial, disposition = %disposed.disposition, "disposed");
        self.shared.orders.dispose(disposed, &self.shared.signer).await.map_err(order_refused)?;
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
        let (units, next) =
            self.shared.units.page(list.order.as_ref(), list.from, list.size).map_err(internal)?;
        Ok(Response::new(messages::ListUnitsResponse {
            units: units.iter().map(|unit| wire::unit(&self.name, unit)).collect(),
            next_page_token: next.map_or_else(String::new, |next| next.get().to_string()),
        }))
    }

    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<messages::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        _: Request<messages::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        // Listening begins before the nests are asked, so that nothing falls between.
        let mut events = self.shared.events.watch();
        let (to_watcher, stream) = tokio::sync::mpsc::channel(64);
        let service = self.clone();
        tokio::spawn(async move {
            for nest in service.nests.values() {
                let state = wire::nest_state(nest.name(), nest.look().await);
                if to_watcher.send(Ok(state)).await.is_err() {
                    return;
                }
            }
            loop {
                let message = tokio::select! {
                    event = events.recv() => match event {
                        Ok(event) => wire::event(event),
                        Err(RecvError::Lagged(missed)) => wire::missed(missed),
                        Err(RecvError::Closed) => return,
                    },
                    () = to_watcher.closed() => return,
                };
                if to_watcher.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(stream))))
    }

    async fn describe_station(
        &self,
        _: Request<messages::DescribeStationRequest>,
    ) -> Answer<messages::DescribeStationResponse> {
        let mut nests = Vec::new();
        for (name, nest) in &*self.nests {
            let look = nest.look().await;
            nests.push(messages::NestDescription {
                nest: name.to_string(),
                run_id: look.run.map_or_else(String::new, |run| run.to_string()),
                parked: look.parked.unwrap_or_default(),
                parked_by_hand: look.by_hand.as_ref().map(wire::parked_by_hand),
            });
        }
        let standing = self.shared.backlog.standing();
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
        }))
    }
}

impl StationService {
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
        self.nests.get(name).ok_or_else(|| Status::not_found(format!("this station has no nest {name}")))
    }

    async fn by_hand(&self, command: NestCommanded) -> Result<Look, Status> {
        self.nest(&command.nest)?.command(command).await.map_err(hand_refused)
    }

    fn find(&self, run: RunId) -> Result<Unit, Status> {
        let unit = self.shared.units.find(run).map_err(internal)?;
        unit.ok_or_else(|| Status::not_found(format!("this station knows no run {run}")))
    }
}

fn start_refused(error: StartError) -> Status {
    match error {
        StartError::Order(error) => order_refused(error),
        StartError::Recipe(error) => recipe_refused(error),
        StartError::Unit(_) | StartError::Credentials(_) => Status::failed_precondition(error.to_string()),
        StartError::Journal(error) => internal(error),
        StartError::Reused => Status::already_exists(error.to_string()),
        StartError::NoRoom(_) => Status::resource_exhausted(error.to_string()),
        StartError::Busy { .. }
        | StartError::Parked { .. }
        | StartError::ByHand { .. }
        | StartError::NoneFree(_) => Status::failed_precondition(error.to_string()),
        StartError::Draining | StartError::OutOfOrder(_) => Status::unavailable(error.to_string()),
    }
}

fn hand_refused(error: HandError) -> Status {
    let text = error.to_string();
    match error {
        HandError::Reused => Status::already_exists(text),
        HandError::Busy { .. } | HandError::OutOfOrder(_) => Status::failed_precondition(text),
        HandError::Dark { .. } | HandError::Draining => Status::unavailable(text),
        HandError::Story(_) => Status::internal(text),
        HandError::Journal(error) => internal(error),
    }
}

fn order_refused(error: OrderError) -> Status {
    let text = error.to_string();
    match error {
        OrderError::Differs(_) | OrderError::RunTaken(_) | OrderError::Reused => Status::already_exists(text),
        OrderError::Unknown(_) | OrderError::NotQuarantined(_) | OrderError::NeverSeen(_) => {
            Status::not_found(text)
        }
        OrderError::Full { .. } | OrderError::Reconciling => Status::resource_exhausted(text),
        OrderError::Passed(_)
        | OrderError::Running { .. }
        | OrderError::Quarantined { .. }
        | OrderError::Scrapped(_)
        | OrderError::NotPassed(_)
        | OrderError::NotListed { .. }
        | OrderError::OtherValue { .. }
        | OrderError::UnitList(_)
        | OrderError::Paused { .. }
        | OrderError::Closed { .. }
        | OrderError::Closing(_)
        | OrderError::UnitsInside { .. }
        | OrderError::OpenUnits { .. }
        | OrderError::OtherOrder { .. } => Status::failed_precondition(text),
        OrderError::Signer(SignerError::Unreachable { .. } | SignerError::TooMuch(_)) => {
            Status::unavailable(text)
        }
        OrderError::Signer(_) => Status::failed_precondition(text),
        OrderError::Journal(error) => internal(error),
    }
}

/// Every unit of a list must be one that can be made, and have a name of its own; up to so many complaints.
const UNIT_COMPLAINTS: usize = 20;

fn check_units(recipe: &Recipe, order: &OrderId, list: &UnitList) -> Result<(), Status> {
    let mut names = HashSet::new();
    let mut complaints = Vec::new();
    for (serial, values) in list.iter() {
        let unit = template::Unit { product: &recipe.name, order, serial, values };
        let checked = recipe.check_unit(&unit).and_then(|()| recipe.identity.endpoint_name(&unit));
        match checked {
            Ok(name) if names.insert(name.clone()) => continue,
            Ok(name) => {
                complaints.push(format!("unit {serial}: the endpoint name {name} is another unit's too"))
            }
            Err(error) => complaints.push(format!("unit {serial}: {error}")),
        }
        if complaints.len() == UNIT_COMPLAINTS {
            complaints.push("and maybe more".to_owned());
            break;
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("unit_list: {}", complaints.join("; "))))
}

fn recipe_refused(error: RecipeError) -> Status {
    match error {
        RecipeError::Unknown(_) | RecipeError::NotHeld { .. } => Status::not_found(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}

fn internal(error: JournalError) -> Status {
    let text = factory_fixtures::fault::chain(&error);
    tracing::error!(reason = text, "the journal failed");
    Status::internal(format!("the journal failed: {text}"))
}
