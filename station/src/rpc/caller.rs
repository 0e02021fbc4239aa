//! Who calls, for people: as far as the connection tells.

use tonic::{Request, transport::server::UdsConnectInfo};

/// A user of this host, or an address.
pub fn of<T>(request: &Request<T>) -> String {
    if let Some(socket) = request.extensions().get::<UdsConnectInfo>() {
        return match &socket.peer_cred {
            Some(process) => format!("user {}", process.uid()),
            None => "a user of this host".to_owned(),
        };
    }
    request.remote_addr().map_or_else(|| "an unknown caller".to_owned(), |address| address.ip().to_string())
}
