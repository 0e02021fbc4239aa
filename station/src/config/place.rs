//! Where the station file says that others are: the signer and the line's controller.

use std::net::IpAddr;

use factory_settings::{Table, path, table, text};
use tonic::transport::Uri;

use crate::place::{ClientFiles, Place};

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

/// `http://` on loopback; `https://host:port` anywhere, which needs `[controller-tls]`.
pub fn controller(file: &mut Table<'_>) -> Option<Place> {
    let uri: Option<Uri> = file.required("controller", text);
    let tls = file.optional("controller-tls", table(|tls| files("controller-tls", tls)));
    let (uri, tls) = (uri?, tls?);
    match (uri.scheme_str(), tls) {
        (Some("https"), Some(files)) => Some(Place::Tls { uri, files }),
        (Some("https"), None) => {
            file.complain("controller", "needs [controller-tls]: both sides prove who they are");
            None
        }
        (Some("http"), None) if is_loopback(&uri) => Some(Place::Plain(uri)),
        (Some("http"), Some(_)) if is_loopback(&uri) => {
            file.complain(
                "controller-tls",
                "needs a `controller` with https://: there is no TLS with http://",
            );
            None
        }
        _ => {
            file.complain(
                "controller",
                "must be an https:// address, with [controller-tls], or an http:// address on loopback",
            );
            None
        }
    }
}

fn files(section: &'static str, tls: &mut Table<'_>) -> Option<ClientFiles> {
    let ca = tls.required("ca", path);
    let certificate = tls.required("certificate", path);
    let key = tls.required("key", path);
    Some(ClientFiles { section, ca: ca?, certificate: certificate?, key: key? })
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
