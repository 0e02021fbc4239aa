//! `serve`: signs, until SIGTERM.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use anyhow::{Context, Result};
use factory_door::{doors::Door, socket, tls::Tls};
use factory_hsm::{
    authority::Authority,
    config::{AuthorityKey, Config},
    crl::Publisher,
    health::Health,
    issuers::{Ca, Issuers},
    ledger::Ledger,
    order::OrderKeys,
    peer::{PeerDoors, Peers},
    profile::device::Profile,
    provenance::Provenance,
    registrar::Registrar,
    service,
    token::{
        module::Module,
        pool::SigningPool,
        session::{Access, Login},
    },
    vigil::{Fatal, Vigil},
    witness::Witness,
};
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::{error, info};

use crate::verb::read_pin;

/// Owner and group may connect; who of them may ask is the peers' business.
const SOCKET_MODE: u32 = 0o660;

/// Serves the signer's API.
pub fn serve(config: &Path) -> Result<()> {
    let config = Config::read(config)?;
    let pin = read_pin(&config.pin_credential)?;
    let order_keys = OrderKeys::read(&config.order_keys)?;
    let login = Login::new(Module::load(&config.module)?, &config.token_label, pin);
    let login = Arc::new(login.looked_at_every(config.look_every));
    let pool = |key: &str, sessions| {
        SigningPool::open(Access::new(login.clone(), key), sessions, config.sign_deadline)
    };
    let provenance = Arc::new(Provenance::open(
        &config.provenance.certificate,
        pool(&config.provenance.key_label, NonZeroUsize::MIN)?,
    )?);
    let now = OffsetDateTime::now_utc();
    let profiles: Vec<_> = config.profiles.into_iter().map(Arc::new).collect();
    let ca = |ca: AuthorityKey| {
        let authority = Authority::read(&ca.role.certificate)?;
        let issues_by =
            |profile: &&Arc<Profile>| ca.profiles.as_ref().is_none_or(|names| names.contains(&profile.name));
        let profiles = profiles.iter().filter(issues_by).cloned().collect();
        anyhow::Ok(Ca::new(ca.name, authority, pool(&ca.role.key_label, config.sessions)?, profiles, now)?)
    };
    let issuers = Arc::new(Issuers::new(config.authorities.into_iter().map(ca).collect::<Result<_>>()?));
    let runtime = tokio::runtime::Runtime::new().context("the runtime could not be started")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (listener, _socket) = socket::listen(&config.socket, SOCKET_MODE)?;
        let mut doors = vec![Door::Socket(listener)];
        if let Some((address, files)) = config.listen {
            let tls = Tls::load(files)?;
            let listener = TcpListener::bind(address).await;
            let listener =
                listener.with_context(|| format!("cannot listen on {address}: correct `listen`"))?;
            // Port 0 is any.
            info!(address = %listener.local_addr()?, "listening");
            doors.push(Door::Tls(listener, tls));
        }
        let doors = PeerDoors::open(doors, Peers::new(config.peers));
        let ledger =
            Arc::new(Ledger::open(&config.ledger, &order_keys).context("the ledger cannot be opened")?);
        let witness = Witness::new(ledger.clone(), provenance.clone());
        let (health, vigil) = (
            Health::default(),
            Vigil {
                login: login.clone(),
                room: ledger.room(),
                betrayed: witness.betrayed(),
                deadline: config.sign_deadline,
                hang_limit: config.hang_limit,
            },
        );
        let publisher = config.revocation.map(|(directory, lifetime)| Publisher {
            issuers: issuers.clone(),
            ledger: ledger.clone(),
            directory,
            lifetime,
        });
        let registrar = Registrar::new(issuers, provenance, ledger, order_keys);
        info!(socket = %config.socket.display(), token = registrar.issuers().token().label, "serving");
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::select! {
            served = service::serve(doors, registrar, witness.clone(), &health, stop) => {
                served?;
            }
            fatal = vigil.keep(&health) => return Err(fatal.into()),
            () = witness.keep_signing() => {}
            () = publish(publisher) => {}
        }
        info!("stopped");
        Ok(())
    });
    if let Some(hung @ Fatal::Hung(_)) = ended.as_ref().err().and_then(anyhow::Error::downcast_ref) {
        error!("{hung}");
        // SAFETY: nothing is left to be written. Neither the runtime's threads nor the module's exit handlers, which an
        // ordinary exit runs, may wait for the call that does not come back.
        unsafe { nix::libc::_exit(1) }
    }
    ended
}

async fn publish(publisher: Option<Publisher>) {
    match publisher {
        Some(publisher) => publisher.keep_publishing().await,
        None => std::future::pending().await,
    }
}
