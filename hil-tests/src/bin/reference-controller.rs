//! `reference-controller`: a small, honest MES from which an integrator starts. Serves `LineController` with its
//! state in a SQLite file or in PostgreSQL, and shows what it has.

use std::{
    io::{self, BufWriter},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use factory_door::tls::{Tls, TlsFiles};
use factory_hil_tests::mes::{
    controller::Controller,
    store::{
        Place, Store,
        export::{self, Format},
    },
};
use tokio::{net::TcpListener, signal::unix};

/// Takes the results of factory stations and keeps each once.
///
/// Any number of these may run over one database. A station may call any of them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Args)]
struct Serve {
    /// Where it listens; port 0 is any, and is printed. Without TLS, this must be a loopback address.
    #[arg(long)]
    listen: SocketAddr,
    /// Its certificate, and what is between that and the CA that stations trust, PEM: stations call it with mutual TLS.
    #[arg(long, requires_all = ["key", "client_ca"])]
    certificate: Option<PathBuf>,
    /// The certificate's key, PEM; readable for nobody else.
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// The CAs of the stations' certificates, PEM.
    #[arg(long, requires = "certificate")]
    client_ca: Option<PathBuf>,
    /// What they have withdrawn: their revocation lists, PEM; a new file is taken without a restart.
    #[arg(long, requires = "certificate")]
    client_crl: Option<PathBuf>,
    #[command(flatten)]
    store: Where,
}

#[derive(clap::Args)]
struct Where {
    /// Where results are: sqlite:FILE, or postgres:///DATABASE?host=FOLDER-OF-ITS-SOCKET&user=NAME.
    #[arg(long)]
    store: Place,
    /// A file with nothing but the password for PostgreSQL.
    #[arg(long)]
    password_file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Takes results until SIGTERM.
    Serve(Serve),
    /// Writes all results to standard output, in the order in which they were kept.
    Export {
        #[command(flatten)]
        store: Where,
        /// How.
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
    },
    /// Writes each signed head into a file, as `stationctl provenance verify --head` takes them.
    Heads {
        #[command(flatten)]
        store: Where,
        /// Where to.
        #[arg(long)]
        folder: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match Arguments::parse().verb {
        Verb::Serve(serve) => run(serve),
        Verb::Export { store, format } => {
            export::results(&store.open()?, format, BufWriter::new(io::stdout()))
        }
        Verb::Heads { store, folder } => {
            let paths = export::heads(&store.open()?, &folder)?;
            println!("{} heads in {}", paths.len(), folder.display());
            Ok(())
        }
    }
}

#[tokio::main]
async fn run(Serve { listen, certificate, key, client_ca, client_crl, store }: Serve) -> anyhow::Result<()> {
    let tls = match (certificate, key, client_ca) {
        (Some(certificate), Some(key), Some(client_ca)) => {
            Some(TlsFiles { certificate, key, client_ca, client_crl })
        }
        _ => None,
    };
    ensure!(
        tls.is_some() || listen.ip().is_loopback(),
        "the network can see {listen}: name --certificate, --key and --client-ca, or listen on 127.0.0.1"
    );
    let tls = tls.map(Tls::load).transpose();
    let tls = tls.context("--certificate, --key and --client-ca cannot be used")?;
    let controller = Controller::over(store.open()?);
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("{listen} cannot be listened on"))?;
    println!("listening on {}", listener.local_addr()?);
    let mut end = unix::signal(unix::SignalKind::terminate())?;
    tokio::select! {
        served = controller.serve_on(listener, tls) => served,
        // What is under way is not acknowledged: the stations send it again, and nothing is kept twice.
        _ = end.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

impl Where {
    fn open(mut self) -> anyhow::Result<Store> {
        if let Some(file) = &self.password_file {
            let password = std::fs::read_to_string(file)
                .with_context(|| format!("the password in {} cannot be read", file.display()))?;
            self.store.set_password(password.trim_end_matches(['\r', '\n']))?;
        }
        Store::open(self.store)
    }
}
