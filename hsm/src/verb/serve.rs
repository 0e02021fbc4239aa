//! `serve`: signs, until SIGTERM.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use anyhow::{Context, Result};
use factory_hsm::{
    authority::Authority,
    config::Config,
    door::Doors,
    health::Health,
    issuer::Issuer,
    ledger::Ledger,
    peer::Peers,
    provenance::Provenance,
    registrar::Registrar,
    service, socket,
    tls::Tls,
    token::{
        module::Module,
        pool::SigningPool,
        session::{Access, Login},
    },
    vigil::{Fatal, Vigil},
};
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::{error, info};

use crate::verb::read_pin;

/// Serves the signer's API.
pub fn serve(config: &Path) -> Result<()> {
    let config = Config::read(config)?;
    let pin = read_pin(&config.pin_credential)?;
    let ca = &config.authorities[0].role;
    let authority = Authority::read(&ca.certificate)?;
    let login = Login::new(Module::load(&config.module)?, &config.token_label, pin);
    let login = Arc::new(login.looked_at_every(config.look_every));
    let pool = |key: &str, sessions| {
        SigningPool::open(Access::new(login.clone(), key), sessions, config.sign_deadline)
    };
    let issuing = pool(&ca.key_label, config.sessions)?;
    let provenance = Provenance::open(
        &config.provenance.certificate,
        pool(&config.provenance.key_label, NonZeroUsize::MIN)?,
    )?;
    let now = OffsetDateTime::now_utc();
    let issuer = Issuer::new(authority, issuing, config.subject, config.certificate_lifetime, now)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime could not be started")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (listener, _socket) = socket::listen(&config.socket)?;
        let tls = match config.listen {
            Some((address, files)) => {
                let tls = Tls::load(files)?;
                let listener = TcpListener::bind(address).await;
                let listener =
                    listener.with_context(|| format!("cannot listen on {address}: correct `listen`"))?;
                // Port 0 is any.
                info!(address = %listener.local_addr()?, "listening");
                Some((listener, tls))
            }
            None => None,
        };
        let doors = Doors::open(listener, tls, Peers::new(config.peers));
        let ledger = Ledger::open(&config.ledger).context("the ledger cannot be opened")?;
        let (health, vigil) = (
            Health::default(),
            Vigil {
                login: login.clone(),
                room: ledger.room(),
                deadline: config.sign_deadline,
                hang_limit: config.hang_limit,
            },
        );
        let registrar = Registrar::new(issuer, provenance, ledger);
        info!(socket = %config.socket.display(), token = registrar.issuer().token().label, "serving");
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::select! {
            served = service::serve(doors, registrar, &health, stop) => {
                served?;
            }
            fatal = vigil.keep(&health) => return Err(fatal.into()),
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
