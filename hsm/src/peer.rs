//! Who may ask: decided by the user id that the kernel vouches for (SO_PEERCRED).

use std::sync::Arc;

use tonic::{Request, Status, transport::server::UdsConnectInfo};
use tracing::warn;

/// The users whose processes may call the signer.
#[derive(Debug, Clone)]
pub struct AllowedPeers(Arc<[u32]>);

impl AllowedPeers {
    /// Those users only; when nobody is named, the signer's own user and root.
    pub fn new(uids: Option<Vec<u32>>) -> Self {
        let own = || vec![0, nix::unistd::getuid().as_raw()];
        Self(uids.unwrap_or_else(own).into())
    }

    /// Lets a call through, or answers PERMISSION_DENIED.
    pub fn check(&self, call: Request<()>) -> Result<Request<()>, Status> {
        let credentials = call.extensions().get::<UdsConnectInfo>().and_then(|peer| peer.peer_cred);
        match credentials {
            Some(peer) if self.0.contains(&peer.uid()) => Ok(call),
            Some(peer) => {
                warn!(uid = peer.uid(), pid = peer.pid(), "refused a peer");
                Err(Status::permission_denied(format!("user {} may not use this signer", peer.uid())))
            }
            None => Err(Status::permission_denied("the caller's user is not known")),
        }
    }
}
