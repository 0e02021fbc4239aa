//! The daemon's life: built from its file, served, drained.

use std::{
    collections::BTreeMap,
    fs, io, mem,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use factory_journal::{Journal, JournalError, Options};
use factory_proto::{DESCRIPTORS, ids::NestName, station::station_server::StationServer};
use tokio::{
    net::{TcpListener, UnixListener},
    time::timeout,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::Routes, transport::Server};
use tracing::{info, warn};

use crate::{
    books::{Books, OpenRun},
    config::{Config, NestSettings},
    events::Events,
    health,
    nest::{Left, Nest, Shared, choice::Choice},
    orders::Orders,
    provenance::{Notary, Trouble},
    recipe::{RecipeError, Recipes},
    recovery::{self, RecoveryError},
    results::{Backlog, Uplink},
    rpc::StationService,
    shelf::{Parts, Shelf},
    signatures::{SignatureError, Signatures},
    signer::{Signer, SignerTlsError},
    unit_list,
    units::Units,
    upkeep,
};

// Commands are small, but for the list of an order's units; a message beyond this is no command.
const LARGEST_MESSAGE: usize = unit_list::LONGEST + 64 * 1024;
// What a drained station still gives its controller to acknowledge the last results.
const LAST_RESULTS: Duration = Duration::from_secs(2);

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
    /// The signer cannot be called.
    #[error(transparent)]
    Signer(#[from] SignerTlsError),
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
    let listeners = listeners(&config).await?;
    let signatures = Arc::new(Signatures::demanded(&config.signatures)?);
    let recipes = Arc::new(Recipes::load(&config.recipes, &signatures)?);
    let journal = Arc::new(Journal::open(&config.state, Options::default())?);
    let opened_at = journal.last();
    let mut books = recovery::recover(&journal)?;
    let open_runs = mem::take(&mut books.open);
    let mut by_hand = mem::take(&mut books.parked);
    let units = Units::new(journal.clone());
    let uploaded = Books {
        recipes: mem::take(&mut books.recipes),
        activated: mem::take(&mut books.activated),
        ..Books::default()
    };
    let orders = Orders::new(journal.clone(), units.clone(), books, &config.state.join("orders"));
    let parts = Parts {
        journal: journal.clone(),
        units: units.clone(),
        orders: orders.clone(),
        recipes: recipes.clone(),
        signatures,
    };
    let shelf = Arc::new(Shelf::open(parts, config.state.join("recipes"), &uploaded));
    let shared = Shared {
        backlog: Backlog::count(&journal)?,
        orders,
        units,
        signer: Signer::at(config.signer.clone(), &config.state)?,
        events: Events::default(),
        recipes,
        journal,
    };

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
        controller: config.controller.clone(),
        journal: shared.journal.clone(),
        backlog: shared.backlog.clone(),
    };
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
    let stop_notary = CancellationToken::new();
    let notary = tokio::spawn(notary.run(stop_notary.clone()));

    let service = StationService {
        name: config.name.clone(),
        nests: nests.clone(),
        shelf,
        choice: Arc::new(Choice::new(shared.units.clone())),
        shared: shared.clone(),
        provenance: trouble,
    };
    let stop_server = CancellationToken::new();
    let mut server = tokio::spawn(serve(listeners, routes(service).await?, stop_server.clone()));
    info!(station = %config.name, nests = nests.len(), listen = %config.listen, "station is up");

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
    stop_server.cancel();
    // No task can fail in a way that matters any more, and a client that does not hang up is left behind.
    let _ = uplink.await;
    let _ = upkeep.await;
    if server_ended.is_none() {
        let _ = timeout(LAST_CALLS, server).await;
    }
    let _ = fs::remove_file(&config.socket);
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

struct Listeners {
    network: TcpListener,
    local: UnixListener,
}

async fn listeners(config: &Config) -> Result<Listeners, AppError> {
    let failed = |address: String| move |source| AppError::Listen { address, source };
    let network = TcpListener::bind(config.listen).await.map_err(failed(config.listen.to_string()))?;
    let local = bind(&config.socket).map_err(failed(config.socket.display().to_string()))?;
    Ok(Listeners { network, local })
}

/// Listens on a Unix socket for our user and group; takes over a socket that nobody listens on.
fn bind(path: &PathBuf) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::from(io::ErrorKind::AddrInUse));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("something that is no socket has that name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn routes(service: StationService) -> Result<Routes, AppError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    reporter.set_serving::<StationServer<StationService>>().await;
    health::tell(reporter, &service.shared.journal, service.provenance.clone());
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let station = StationServer::new(service).max_decoding_message_size(LARGEST_MESSAGE);
    Ok(Routes::new(station).add_service(health_service).add_service(reflection))
}

async fn serve(
    listeners: Listeners,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let server =
        |routes| Server::builder().http2_keepalive_interval(Some(Duration::from_secs(30))).add_routes(routes);
    let network = server(routes.clone())
        .serve_with_incoming_shutdown(TcpListenerStream::new(listeners.network), stop.cancelled());
    let local = server(routes)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listeners.local), stop.cancelled());
    tokio::try_join!(network, local).map(|_| ())
}
