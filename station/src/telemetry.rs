//! Where log lines go: standard error, which the journal of systemd takes from there.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// Logs from now on; `RUST_LOG` says what, by default what a line lead would want.
pub fn start() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,probe_rs=warn,h2=warn,hyper=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
}
