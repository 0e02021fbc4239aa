//! Where the station file says that others are: the signer and the line's controllers.

use std::{collections::BTreeSet, net::IpAddr};

use factory_settings::{Table, list, path, table, text};
use tonic::transport::Uri;

use crate::place::{ClientFiles, Place};

/// A list that is longer is a mistake.
const MOST_CONTROLLERS: usize = 8;

/// A path is a socket's; `https://host:port` is a server's, which needs `[signer-tls]`.
pub fn signer(file: &mut Table<'_>) -> Option<Place> {
    let place = file.required("signer", |value| match text::<String>(value)? {
        address if address.starts_with("https://") => text(value).map(Ok),
        _ => path(value).map(Err),
    });
    let tls = file.optional("signer-tls", table(|tls| files("signer-tls", tls)));
    match (place?, tls?) {
        (Ok(uri), Some(files)) => Some(Place::Tls { uri, files }),
        (Err(socket), None) => Some(Place::Socket(socket)),
        (Ok(_), None) => {
            file.complain("signer", "needs [signer-tls]: both sides prove who they are");
            None
        }
        (Err(_), Some(_)) => {
            file.complain("signer-tls", "needs a `signer` with https://: there is no TLS on its socket");
            None
        }
    }
}

/// Each is `http://` on loopback, or `https://host:port` anywhere, which needs `[controller-tls]`.
pub fn controllers(file: &mut Table<'_>) -> Option<Vec<Place>> {
    let uris: Option<Vec<Uri>> = file.required("controllers", list(text));
    let tls = file.optional("controller-tls", table(|tls| files("controller-tls", tls)));
    let (uris, tls) = (uris?, tls?);
    if !(1..=MOST_CONTROLLERS).contains(&uris.len()) {
        file.complain("controllers", format!("must be 1 to {MOST_CONTROLLERS} addresses"));
    }
    if tls.is_some() && uris.iter().all(|uri| uri.scheme_str() != Some("https")) {
        file.complain(
            "controller-tls",
            "needs one of `controllers` with https://: there is no TLS with http://",
        );
    }
    let mut seen = BTreeSet::new();
    let mut places = Vec::new();
    for uri in uris {
        if !seen.insert(uri.to_string()) {
            file.complain("controllers", format!("{uri} is there twice"));
        }
        places.push(match (uri.scheme_str(), &tls) {
            (Some("https"), Some(files)) => Some(Place::Tls { uri, files: files.clone() }),
            (Some("https"), None) => {
                file.complain(
                    "controllers",
                    format!("{uri} needs [controller-tls]: both sides prove who they are"),
                );
                None
            }
            (Some("http"), _) if is_loopback(&uri) => Some(Place::Plain(uri)),
            _ => {
                file.complain(
                    "controllers",
                    format!("{uri} must be https://, with [controller-tls], or http:// on loopback"),
                );
                None
            }
        });
    }
    places.into_iter().collect()
}

fn files(section: &'static str, tls: &mut Table<'_>) -> Option<ClientFiles> {
    let ca = tls.required("ca", path);
    let certificate = tls.required("certificate", path);
    let key = tls.required("key", path);
    let crl = tls.optional("crl", path);
    Some(ClientFiles { section, ca: ca?, crl: crl?, certificate: certificate?, key: key? })
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
