//! The daemon's life: built from its file, served, drained.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io, mem,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use factory_door::{
    admission::AdmissionLayer,
    doors::{Door, Doors},
    socket::{self, SocketError, SocketFile},
    tls::{Tls, TlsError},
};
use factory_journal::{Journal, JournalError, Options};
use factory_jws::JwsKeyError;
use factory_proto::{DESCRIPTORS, ids::NestName, station::station_server::StationServer};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::Routes, transport::Server};
use tower::layer::layer_fn;
use tracing::{info, warn};

use crate::{
    attestations::Attestations,
    books::{Books, OpenRun},
    callers::{Caller, Callers},
    commands::Commands,
    config::{Config, NestSettings},
    events::Events,
    golden::Golden,
    health::{self, Sources, parts::Parts},
    line::{self, Line, controllers::Controllers, heartbeat::Heart, offline::Offline, refusals::Refusals},
    nest::{Left, Nest, Shared, choice::Choice},
    orders::Orders,
    provenance::{Notary, Trouble},
    recipe::{RecipeError, Recipes},
    recovery::{self, RecoveryError},
    results::{Backlog, Uplink},
    rpc::{
        StationService,
        access::{self, AccessLayer},
        deadline::Timely,
    },
    shelf::{self, Shelf},
    signatures::{SignatureError, Signatures},
    signer::Signer,
    units::Units,
    upkeep,
};

// What a drained station still gives its controller to acknowledge the last results.
const LAST_RESULTS: Duration = Duration::from_secs(2);

// Our clients send a few hundred bytes.
const HEADER_LIMIT: u32 = 16 * 1024;
// A connection that is silent for so long is asked whether it is alive, and closed after that time again.
const KEEPALIVE: Duration = Duration::from_secs(20);
// So that a caller whose certificate was withdrawn has to show it again; calls that have begun are not cut off.
const CONNECTION_AGE: Duration = Duration::from_secs(3600);
// What clients get to hang up.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Why the station does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The journal cannot be used.
    #[error("the journal cannot be opened")]
    Journal(#[from] JournalError),
    /// What the journal tells cannot be continued.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The addresses cannot be listened on.
    #[error("cannot listen on {address}; see whether another station runs there")]
    Listen {
        /// Address or path.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate that signatures are held against.
    #[error(transparent)]
    Signatures(#[from] SignatureError),
    /// The key that offline allowances are held against.
    #[error("`offline-budget.key` of the station file cannot be used")]
    AllowanceKey(#[from] JwsKeyError),
    /// The socket cannot be listened on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The files of a connection.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The reflection service could not be set up.
    #[error("the API's description cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the server failed")]
    Server(#[from] tonic::transport::Error),
}

/// Runs a station until `stop` is cancelled, then drains it. `program` is the daemon's own executable, which
/// also serves as the instruments' processes.
pub async fn run(config: Config, program: &Path, stop: CancellationToken) -> Result<(), AppError> {
    let started = SystemTime::now();
    let (doors, socket_file) = doors(&config).await?;
    let signatures = Arc::new(Signatures::demanded(&config.signatures)?);
    let recipes = Arc::new(Recipes::load(&config.recipes, &signatures)?);
    let journal = Arc::new(Journal::open(&config.state, Options::default())?);
    let opened_at = journal.last();
    let mut books = recovery::recover(&journal)?;
    let open_runs = mem::take(&mut books.open);
    let mut by_hand = mem::take(&mut books.parked);
    let units = Units::new(journal.clone());
    let offline = Offline::new(
        config.name.clone(),
        line::allowance_keys(config.offline_budget_key.as_deref())?,
        journal.clone(),
        mem::take(&mut books.budget),
    );
    let line = Line {
        station: config.name.clone(),
        controllers: Controllers::at(&config.controllers)?,
        interlock: config.interlock,
        offline,
        refusals: Refusals::of(&journal)?,
    };
    let golden = Golden::new(config.golden.clone(), units.clone(), mem::take(&mut books.golden));
    let attestations = Attestations::new(mem::take(&mut books.attested));
    let uploaded = Books {
        recipes: mem::take(&mut books.recipes),
        activated: mem::take(&mut books.activated),
        ..Books::default()
    };
    let orders = Orders::new(units.clone(), attestations.clone(), books, &config.state.join("orders"));
    let commands = Commands::new(journal.clone());
    let parts = shelf::Parts {
        commands: commands.clone(),
        orders: orders.clone(),
        recipes: recipes.clone(),
        signatures,
    };
    let shelf = Arc::new(Shelf::open(parts, config.state.join("recipes"), &uploaded));
    let shared = Shared {
        backlog: Backlog::count(&journal)?,
        orders,
        attestations,
        golden,
        units,
        commands,
        signer: Signer::at(config.signer.clone(), &config.state)?,
        events: Events::new(journal.clone()),
        recipes,
        journal,
        line,
    };

    let states = shared.events.watch_ourselves();
    let nest_tasks = TaskTracker::new();
    let mut left = left(&config, open_runs.into_values(), &shared).await?;
    let open = |settings: &NestSettings| {
        let (left, by_hand) = (left.remove(&settings.name), by_hand.remove(&settings.name));
        let nest = Nest::open(settings, program, shared.clone(), left, by_hand, &nest_tasks);
        (nest.name().clone(), nest)
    };
    let nests: Arc<BTreeMap<_, _>> = Arc::new(config.nests.iter().map(open).collect());
    nest_tasks.close();

    let uplink = Uplink {
        station: config.name.clone(),
        controllers: shared.line.controllers.clone(),
        journal: shared.journal.clone(),
        backlog: shared.backlog.clone(),
    };
    let parts = Parts::default();
    let controller = shared.line.controllers.contact().clone();
    let stop_uplink = CancellationToken::new();
    let uplink = tokio::spawn(uplink.run(stop_uplink.clone()));
    let upkeep = tokio::spawn(upkeep::keep(shared.journal.clone(), stop_uplink.clone()));

    let trouble = Trouble::default();
    let notary = Notary {
        station: config.name.clone(),
        state: config.state.clone(),
        journal: shared.journal.clone(),
        opened_at,
        signer: shared.signer.clone(),
        backlog: shared.backlog.clone(),
        occasions: config.provenance.clone(),
        trouble: trouble.clone(),
    };
    let heart = Heart {
        every: config.heartbeat,
        nests: nests.clone(),
        shared: shared.clone(),
        provenance: trouble.clone(),
        configuration: config.digest,
    };
    let heart = tokio::spawn(heart.beat(stop_uplink.clone()));
    let stop_notary = CancellationToken::new();
    let notary = tokio::spawn(notary.run(stop_notary.clone()));

    let sources = Sources {
        journal: shared.journal.clone(),
        states,
        nests: nests.clone(),
        provenance: trouble.clone(),
        signer: shared.signer.contact().clone(),
        controller,
    };
    health::watch(&parts, sources);

    let service = StationService {
        name: config.name.clone(),
        nests: nests.clone(),
        shelf,
        choice: Arc::new(Choice::new(shared.commands.clone(), shared.units.clone())),
        shared: shared.clone(),
        provenance: trouble,
        parts,
        configuration: config.digest,
        started,
    };
    let stop_server = CancellationToken::new();
    let doors = Doors::open(doors, Callers::new(config.callers.clone()));
    let access = AccessLayer::new(shared.journal.clone());
    let streams = u32::try_from(config.callers.limits.at_a_time).unwrap_or(u32::MAX);
    let server = serve(doors, access, streams, routes(service).await?, stop_server.clone());
    let mut server = tokio::spawn(server);
    info!(station = %config.name, nests = nests.len(), "station is up");

    let server_ended = tokio::select! {
        () = stop.cancelled() => None,
        ended = &mut server => Some(ended),
    };
    info!("station drains");
    drain(&nests, &nest_tasks, config.drain).await;
    stop_notary.cancel();
    let _ = notary.await;
    if timeout(LAST_RESULTS, shared.backlog.delivered()).await.is_err() {
        warn!("results stay in the journal until the controller is back");
    }
    stop_uplink.cancel();
    shared.events.close();
    stop_server.cancel();
    // No task can fail in a way that matters any more, and a client that does not hang up is left behind.
    let _ = uplink.await;
    let _ = upkeep.await;
    let _ = heart.await;
    if server_ended.is_none() {
        let _ = timeout(LAST_CALLS, server).await;
    }
    drop(socket_file);
    info!("station is down");
    match server_ended {
        Some(Ok(Err(error))) => Err(AppError::Server(error)),
        _ => Ok(()),
    }
}

/// The runs that were left open, by the nests that go on with them. One that nobody can go on with is closed.
async fn left(
    config: &Config,
    open_runs: impl Iterator<Item = OpenRun>,
    shared: &Shared,
) -> Result<BTreeMap<NestName, Left>, JournalError> {
    let mut left = BTreeMap::new();
    for open in open_runs {
        let nest = open.run.nest.clone();
        let there = config.nests.iter().any(|settings| settings.name == nest) && !left.contains_key(&nest);
        let found =
            if there { Left::find(open.clone(), shared) } else { Err(format!("nest {nest} is gone")) };
        match found {
            Ok(run) => drop(left.insert(nest, run)),
            Err(reason) => Left::give_up(open, &reason, shared).await?,
        }
    }
    Ok(left)
}

/// Lets every nest finish its unit; breaks off what is not done in time.
async fn drain(nests: &BTreeMap<NestName, Nest>, tasks: &TaskTracker, patience: Duration) {
    for nest in nests.values() {
        nest.drain().await;
    }
    if timeout(patience, tasks.wait()).await.is_err() {
        warn!("units that are not done are broken off");
        for nest in nests.values() {
            nest.stop_now().await;
        }
        tasks.wait().await;
    }
}

/// Where connections come in. Nobody is let in yet.
async fn doors(config: &Config) -> Result<(Vec<Door>, SocketFile), AppError> {
    let mut doors = Vec::new();
    if let Some(listen) = &config.listen {
        let failed = |source| AppError::Listen { address: listen.address.to_string(), source };
        let tls = listen.tls.clone().map(Tls::load).transpose()?;
        let listener = TcpListener::bind(listen.address).await.map_err(failed)?;
        // Port 0 is any.
        info!(address = %listener.local_addr().map_err(failed)?, tls = tls.is_some(), "listening");
        doors.push(match tls {
            Some(tls) => Door::Tls(listener, tls),
            None => Door::Plain(listener),
        });
    }
    // Last: whoever finds the socket finds the other door as well.
    //
    // Where the file knows users and groups, anybody may knock and is told whether he may come in; otherwise there is only
    // root and our own user.
    let mode = if config.callers.knows_users() { 0o666 } else { 0o660 };
    let (listener, socket_file) = socket::listen(&config.socket, mode)?;
    doors.push(Door::Socket(listener));
    Ok((doors, socket_file))
}

async fn routes(service: StationService) -> Result<Routes, AppError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    reporter.set_serving::<StationServer<StationService>>().await;
    health::serve(reporter, &service.parts, service.nests.keys()).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let station = Timely(StationServer::new(service).max_decoding_message_size(access::LARGE));
    Ok(Routes::new(station).add_service(health_service).add_service(reflection))
}

async fn serve(
    doors: Doors<Caller, Infallible>,
    access: AccessLayer,
    streams: u32,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .max_concurrent_streams(streams)
        .http2_max_header_list_size(HEADER_LIMIT)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_connection_age(CONNECTION_AGE)
        .layer(AdmissionLayer::<Callers>::new())
        // Outside too: an answer that came late does not wait for its audit.
        .layer(layer_fn(Timely))
        .layer(access)
        .add_routes(routes)
        .serve_with_incoming_shutdown(doors, stop.cancelled_owned())
        .await
}
