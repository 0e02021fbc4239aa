//! The head of the signer's ledger that the station was told last: kept in its state folder, brought with every call.
//!
//! By it the signer finds out that its ledger is not the one that this station was answered from.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factory_proto::ledger_head::{METADATA, SignedLedgerHead};
use tokio::task::spawn_blocking;
use tonic::{
    Request, Status,
    metadata::{MetadataMap, MetadataValue},
    service::Interceptor,
};
use tracing::warn;

const NAME: &str = "signer-head";

/// The newest head that the signer has handed out. Clones are the same.
#[derive(Clone)]
pub struct KeptHead(Arc<State>);

struct State {
    /// The state folder.
    folder: PathBuf,
    newest: Mutex<Option<Vec<u8>>>,
    /// Held while the file is written.
    writing: Mutex<()>,
}

impl KeptHead {
    /// What the folder holds; a file that is no head is left alone until there is a new one.
    pub fn read(folder: &Path) -> Self {
        let (newest, writing) = (Mutex::new(read(&folder.join(NAME))), Mutex::default());
        Self(Arc::new(State { folder: folder.to_owned(), newest, writing }))
    }

    /// Takes in what came with an answer.
    pub async fn learn(&self, metadata: &MetadataMap) {
        let Some(Ok(head)) = metadata.get_bin(METADATA).map(|head| head.to_bytes()) else { return };
        if !self.0.take(&head) {
            return;
        }
        let state = self.0.clone();
        let written = spawn_blocking(move || state.write()).await;
        if let Ok(Err(error)) = written {
            warn!(error = &error as &dyn std::error::Error, "the head of the signer's ledger was not kept");
        }
    }
}

impl Interceptor for KeptHead {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(head) = &*self.0.newest() {
            request.metadata_mut().insert_bin(METADATA, MetadataValue::from_bytes(head));
        }
        Ok(request)
    }
}

impl State {
    /// Whether this is newer than what is known. Answers may overtake each other.
    fn take(&self, head: &[u8]) -> bool {
        let Ok((_, new)) = SignedLedgerHead::decode(head) else { return false };
        let mut newest = self.newest();
        let known = newest.as_deref().and_then(|known| SignedLedgerHead::decode(known).ok());
        let is_newer =
            known.is_none_or(|(_, known)| known.log_id != new.log_id || known.sequence < new.sequence);
        if is_newer {
            *newest = Some(head.to_vec());
        }
        is_newer
    }

    fn write(&self) -> io::Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(head) = self.newest().clone() else { return Ok(()) };
        let (path, new) = (self.folder.join(NAME), self.folder.join(format!("{NAME}.new")));
        let mut file = File::create(&new)?;
        file.write_all(&head)?;
        file.sync_all()?;
        fs::rename(new, path)
    }

    fn newest(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(path = %path.display(), error = &error as &dyn std::error::Error, "cannot be read");
            return None;
        }
    };
    if SignedLedgerHead::decode(&bytes).is_err() {
        warn!(path = %path.display(), "is no head of a signer's ledger, and is not used");
        return None;
    }
    Some(bytes)
}
