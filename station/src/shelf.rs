//! Recipes that are uploaded: checked as any other, kept under their digest, activated and removed, each by a record.
//! Knows nothing of gRPC.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use data_encoding::HEXLOWER;
use factory_journal::JournalError;
use factory_proto::ids::{OrderId, RecipeName};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::spawn_blocking,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    books::Books,
    commands::{Command, CommandError, Commands, Turn},
    orders::Orders,
    recipe::{Held, Origin, Recipe, RecipeError, RecipeKey, Recipes},
    record::{RecipeAct, RecipeCommanded, Record},
    signatures::Signatures,
};
use incoming::Incoming;

pub mod incoming;

/// So many are kept, so that a start takes no longer than it takes to read these.
pub const KEPT: usize = 64;
/// All that is kept, in bytes; read in about a second.
pub const ROOM: u64 = 512 * 1024 * 1024;

/// So long somebody waits for an upload that is under way.
const TURN: Duration = Duration::from_secs(20);

/// Why a recipe is not taken, activated or removed; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// What came is none.
    #[error("{0}")]
    Refused(String),
    /// One at a time.
    #[error("another recipe is being uploaded; try again when it is there")]
    Uploading,
    /// There is no more room.
    #[error("the station keeps {KEPT} uploaded recipes of {} MiB together at most; remove one first", ROOM >> 20)]
    Full,
    /// It is not there, or cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// It was not uploaded.
    #[error("recipe {0} is from the station's folder of recipes; take its file out there")]
    FromFolder(RecipeName),
    /// Orders are opened with it.
    #[error("this is the active recipe {0}; activate another one first")]
    Active(RecipeName),
    /// Orders were opened with it.
    #[error("work orders were opened with this recipe {name}: {orders}; close them first")]
    InUse {
        /// Its name.
        name: RecipeName,
        /// The first of them.
        orders: String,
    },
    /// The command cannot be carried out, whatever it asks for.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It cannot be kept.
    #[error("{} cannot be written; see to the disk", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing more can be made durable.
    #[error("the journal took nothing more")]
    Journal(#[from] JournalError),
}

/// A recipe, and the orders that were opened with it and are not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The recipe.
    pub held: Held,
    /// The orders.
    pub used_by: Vec<OrderId>,
}

/// What is uploaded to a station.
pub struct Shelf {
    commands: Commands,
    orders: Orders,
    recipes: Arc<Recipes>,
    signatures: Arc<Signatures>,
    folder: PathBuf,
    uploading: Arc<Mutex<()>>,
    /// Held while what is held changes, or is relied on.
    changing: Mutex<()>,
}

/// What a shelf works with.
pub struct Parts {
    /// Which command was carried out.
    pub commands: Commands,
    /// Who uses recipes.
    pub orders: Orders,
    /// What is held already: the recipes of the station's folder.
    pub recipes: Arc<Recipes>,
    /// Who must have signed.
    pub signatures: Arc<Signatures>,
}

impl Shelf {
    /// Reads again what was kept in `folder`, as the books say. What is broken is told and left there. Blocks.
    pub fn open(parts: Parts, folder: PathBuf, books: &Books) -> Self {
        let Parts { commands, orders, recipes, signatures } = parts;
        incoming::clear(&folder);
        for (key, kept) in &books.recipes {
            let read =
                Recipe::read_alone(&file(&folder, key), &signatures).map_err(|error| error.to_string());
            let recipe = read.and_then(|(recipe, _)| match recipe.digest == key.1 {
                true => Ok(recipe),
                false => Err("it is not what was uploaded; remove it and upload it again".to_owned()),
            });
            if let Err(reason) = &recipe {
                warn!(recipe = %key.0, digest = HEXLOWER.encode(&key.1), reason, "an uploaded recipe cannot be used");
            }
            recipes.insert(key.clone(), recipe, kept.at);
        }
        for (name, activated) in &books.activated {
            recipes.activate((name.clone(), activated.digest));
        }
        let (uploading, changing) = (Arc::default(), Mutex::default());
        Self { commands, orders, recipes, signatures, folder, uploading, changing }
    }

    /// Begins to take in a recipe, one at a time.
    ///
    /// # Errors
    /// Another one comes, and takes its time; or the disk takes nothing.
    pub async fn receive(&self, name: RecipeName) -> Result<Incoming, ShelfError> {
        let alone = timeout(TURN, self.uploading.clone().lock_owned()).await;
        let alone = alone.map_err(|_| ShelfError::Uploading)?;
        Incoming::begin(&self.folder, name, alone)
    }

    /// Keeps what came, durably, if it is a recipe as good as any in the station's folder; gives its digest. The same again
    /// is the same.
    ///
    /// # Errors
    /// All that is wrong with it, and nothing was kept.
    pub async fn keep(
        &self,
        incoming: Incoming,
        command: Command,
        by: String,
    ) -> Result<[u8; 32], ShelfError> {
        let signatures = self.signatures.clone();
        let (incoming, digest) = blocking(move || incoming.check(&signatures)).await?;
        let key = (incoming.name().clone(), digest);
        // What the command asks for is known only now.
        let turn = self.commands.begin(command.with(&digest)).await?;
        if turn.is_again() {
            return Ok(digest);
        }
        let record = record(&turn, RecipeAct::Keep, &key, by);
        let _alone = self.changing.lock().await;
        let held = self.recipes.held();
        let uploaded = |held: &&Held| held.origin == Origin::Uploaded;
        match held.iter().filter(uploaded).find(|held| held.key == key) {
            // Not moved to its place once more, where a unit may be made of it at this moment.
            Some(held) if held.complaint.is_none() => {
                turn.commit(Some(Record::RecipeCommanded(record))).await?;
                return Ok(digest);
            }
            Some(_) => {}
            None => {
                let is_full = held.iter().filter(uploaded).count() >= KEPT;
                // What came is under the folder already.
                if is_full || size(&self.folder) > ROOM {
                    return Err(ShelfError::Full);
                }
            }
        }
        let (folder, signatures, place) = (self.folder.clone(), self.signatures.clone(), key.clone());
        let recipe = blocking(move || {
            incoming.settle(&folder, &place)?;
            Ok(Recipe::read_alone(&file(&folder, &place), &signatures)?.0)
        })
        .await?;
        let since = record.at;
        turn.commit(Some(Record::RecipeCommanded(record))).await?;
        info!(recipe = %key.0, digest = HEXLOWER.encode(&digest), "uploaded");
        self.recipes.insert(key, Ok(recipe), since);
        Ok(digest)
    }

    /// Makes a recipe the active one of its name, durably: orders that are opened from now on are made by it.
    ///
    /// # Errors
    /// It is not there, or cannot be used.
    pub async fn activate(&self, turn: &Turn, key: RecipeKey, by: String) -> Result<(), ShelfError> {
        let record = record(turn, RecipeAct::Activate, &key, by);
        let _alone = self.changing.lock().await;
        self.recipes.get(&key.0, &key.1)?;
        turn.commit(Some(Record::RecipeCommanded(record))).await?;
        info!(recipe = %key.0, digest = HEXLOWER.encode(&key.1), "activated");
        self.recipes.activate(key);
        Ok(())
    }

    /// Lets go of an uploaded recipe, durably.
    ///
    /// # Errors
    /// It is not there, or in use.
    pub async fn remove(&self, turn: &Turn, key: RecipeKey, by: String) -> Result<(), ShelfError> {
        let record = record(turn, RecipeAct::Remove, &key, by);
        let _alone = self.changing.lock().await;
        let Some(held) = self.recipes.held().into_iter().find(|held| held.key == key) else {
            let (name, digest) = (key.0, HEXLOWER.encode(&key.1));
            return Err(RecipeError::NotHeld { name, digest }.into());
        };
        let orders: Vec<String> = self.orders.using(&key).iter().take(5).map(ToString::to_string).collect();
        match held {
            Held { origin: Origin::Folder, .. } => return Err(ShelfError::FromFolder(key.0)),
            Held { active: true, .. } => return Err(ShelfError::Active(key.0)),
            _ if !orders.is_empty() => {
                return Err(ShelfError::InUse { name: key.0, orders: orders.join(", ") });
            }
            _ => {}
        }
        turn.commit(Some(Record::RecipeCommanded(record))).await?;
        info!(recipe = %key.0, digest = HEXLOWER.encode(&key.1), "removed");
        self.recipes.remove(&key);
        let place = place(&self.folder, &key);
        // What stays behind is not held any more, and makes way for what is uploaded in its place.
        if let Err(error) = blocking(move || fs::remove_dir_all(&place).map_err(disk(&place))).await {
            warn!(error = &error as &dyn std::error::Error, "a removed recipe stays on the disk");
        }
        Ok(())
    }

    /// All recipes, by name and digest.
    pub fn list(&self) -> Vec<Shown> {
        let shown = |held: Held| Shown { used_by: self.orders.using(&held.key), held };
        self.recipes.held().into_iter().map(shown).collect()
    }

    /// While this is there, no recipe comes or goes.
    pub async fn steady(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }
}

fn record(turn: &Turn, act: RecipeAct, (name, digest): &RecipeKey, by: String) -> RecipeCommanded {
    let (command, recipe, digest) = (turn.command().id, name.clone(), *digest);
    RecipeCommanded { command, recipe, digest, act, by, at: SystemTime::now() }
}

/// The folder of a recipe that was uploaded.
fn place(folder: &Path, (name, digest): &RecipeKey) -> PathBuf {
    folder.join(HEXLOWER.encode(digest)).join(name.as_str())
}

fn file(folder: &Path, key: &RecipeKey) -> PathBuf {
    place(folder, key).join(format!("{}.toml", key.0))
}

/// Bytes of all files under a folder; what cannot be looked at counts nothing.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> ShelfError {
    let path = path.to_owned();
    move |source| ShelfError::Disk { path, source }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ShelfError> + Send + 'static,
) -> Result<T, ShelfError> {
    // It ends otherwise only when the station does.
    spawn_blocking(work).await.map_err(|_| ShelfError::Journal(JournalError::Closed))?
}
