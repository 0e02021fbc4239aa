//! Which commands were carried out, and what each asked for. The same command again, also after a restart, changes nothing
//! more; another one under its id is refused; two at the same time take their turns. Knows nothing of what commands do.
//!
//! A command that was refused is not remembered: it may succeed later.

use std::{
    collections::HashMap,
    future::pending,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factory_journal::{Journal, JournalError, Sequence};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Mutex as Lock, OwnedMutexGuard},
    task::{JoinError, spawn_blocking},
};
use uuid::Uuid;

use crate::record::{CommandDone, Record, command_key};

/// A command, and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Chosen by the caller.
    pub id: Uuid,
    /// The call that brought it.
    pub call: &'static str,
    /// SHA-256 of its contents.
    pub digest: [u8; 32],
}

impl Command {
    /// With something that it asks for beside the message that brought its id.
    pub fn with(self, more: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(self.digest).chain_update(more).finalize().into();
        Self { digest, ..self }
    }
}

/// What a call asks for, whatever its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    call: &'static str,
    digest: [u8; 32],
}

impl Contents {
    /// Of a call.
    pub fn of<C: factory_proto::command::Command>(request: &mut C) -> Self {
        Self { call: C::CALL, digest: Sha256::digest(request.contents()).into() }
    }

    /// As this command.
    pub fn command(self, id: Uuid) -> Command {
        Command { id, call: self.call, digest: self.digest }
    }
}

/// Why a command cannot be carried out, whatever it asks for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is another command's id.
    #[error(
        "command id {id} was used before, for {call} or with other contents; a new command needs a new id"
    )]
    Reused {
        /// The id.
        id: Uuid,
        /// The call that used it.
        call: String,
    },
    /// What was done cannot be looked up.
    #[error("the journal cannot say whether the command was carried out before")]
    Journal(#[from] JournalError),
}

/// All commands; cheap to clone.
#[derive(Clone)]
pub struct Commands {
    journal: Arc<Journal<Record>>,
    under_way: UnderWay,
}

type UnderWay = Arc<Mutex<HashMap<Uuid, Arc<Lock<()>>>>>;

/// The right to carry out a command, alone.
pub struct Turn {
    command: Command,
    again: bool,
    journal: Arc<Journal<Record>>,
    _place: Place,
}

/// A command that is under way, or waits for the same one.
struct Place {
    id: Uuid,
    lock: Arc<Lock<()>>,
    alone: Option<OwnedMutexGuard<()>>,
    under_way: UnderWay,
}

impl Commands {
    /// Remembered in this journal.
    pub fn new(journal: Arc<Journal<Record>>) -> Self {
        Self { journal, under_way: UnderWay::default() }
    }

    /// Waits until nobody carries out this command, and sees whether it was carried out.
    ///
    /// # Errors
    /// Its id is another command's.
    pub async fn begin(&self, command: Command) -> Result<Turn, CommandError> {
        let mut place = Place::take(&self.under_way, command.id);
        place.alone = Some(place.lock.clone().lock_owned().await);
        let (journal, id) = (self.journal.clone(), command.id);
        let known = spawn_blocking(move || known(&journal, id)).await.map_err(|_| JournalError::Closed)??;
        let again = match known {
            Some(done) if done.call != command.call || done.digest != command.digest => {
                return Err(CommandError::Reused { id, call: done.call });
            }
            known => known.is_some(),
        };
        Ok(Turn { command, again, journal: self.journal.clone(), _place: place })
    }
}

impl Turn {
    /// Whether the command was carried out before.
    pub fn is_again(&self) -> bool {
        self.again
    }

    /// The command.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Makes durable what the command did, and that it was carried out, at once. Begin this where nobody can interrupt
    /// it: see [`to_the_end`].
    pub async fn commit(&self, effect: Option<Record>) -> Result<Sequence, JournalError> {
        let Command { id, call, digest } = &self.command;
        let done = CommandDone { command: *id, call: (*call).to_owned(), digest: *digest };
        // Should only the first be there after a crash, then it is what knows the command again.
        let records = effect.into_iter().chain((!self.again).then_some(Record::CommandDone(done)));
        self.journal.append_all(records.collect()).await
    }
}

impl Place {
    fn take(under_way: &UnderWay, id: Uuid) -> Self {
        let lock = locked(under_way).entry(id).or_default().clone();
        Self { id, lock, alone: None, under_way: under_way.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = locked(&self.under_way);
        self.alone = None;
        // The map's and ours: nobody else waits.
        if Arc::strong_count(&self.lock) == 2 {
            under_way.remove(&self.id);
        }
    }
}

/// Goes on to its end, also when whoever waits for that goes away: what has begun to be made durable is not left half done.
pub async fn to_the_end<T: Send + 'static>(act: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(act).await {
        Ok(done) => done,
        Err(error) => match JoinError::try_into_panic(error) {
            Ok(panic) => resume_unwind(panic),
            // The runtime is going down, and this with it.
            Err(_) => pending().await,
        },
    }
}

fn known(journal: &Journal<Record>, id: Uuid) -> Result<Option<CommandDone>, JournalError> {
    for sequence in journal.by_run(&command_key(id))? {
        if let Some(Record::CommandDone(done)) = journal.get(sequence)?.map(|entry| entry.record) {
            return Ok(Some(done));
        }
    }
    Ok(None)
}

// Nothing under this lock can fail half-way.
fn locked(under_way: &UnderWay) -> MutexGuard<'_, HashMap<Uuid, Arc<Lock<()>>>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use factory_journal::Options;
    use factory_proto::station::{ReleaseUnitRequest, StartUnitRequest};

    use super::*;

    fn open(dir: &Path) -> Commands {
        Commands::new(Arc::new(Journal::open(dir, Options::default()).unwrap()))
    }

    fn start(id: u128, values: &[(&str, &str)]) -> Command {
        let values = values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut request =
            StartUnitRequest { command_id: "whatever".to_owned(), values, ..StartUnitRequest::default() };
        let contents = Contents::of(&mut request);
        assert_eq!(request.command_id, "whatever");
        contents.command(Uuid::from_u128(id))
    }

    fn release(id: u128) -> Command {
        Contents::of(&mut ReleaseUnitRequest::default()).command(Uuid::from_u128(id))
    }

    /// `None` when it is refused.
    async fn is_again(commands: &Commands, command: Command) -> Option<bool> {
        match commands.begin(command).await {
            Ok(turn) => Some(turn.is_again()),
            Err(CommandError::Reused { .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn a_command_is_known_by_its_id_and_contents_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let commands = open(dir.path());
        let values = [("mac", "1"), ("colour", "red"), ("size", "2")];
        // One that was refused is not remembered.
        assert_eq!(is_again(&commands, start(1, &[])).await, Some(false));
        commands.begin(start(1, &values)).await.unwrap().commit(None).await.unwrap();
        let check = async |commands: &Commands| {
            assert_eq!(is_again(commands, start(1, &values)).await, Some(true));
            assert_eq!(is_again(commands, start(1, &[values[2], values[0], values[1]])).await, Some(true));
            assert_eq!(is_again(commands, start(1, &values[..2])).await, None);
            assert_eq!(is_again(commands, release(1)).await, None);
            assert_eq!(is_again(commands, start(2, &values)).await, Some(false));
        };
        check(&commands).await;
        drop(commands);
        check(&open(dir.path())).await;
        drop(Journal::<Record>::rebuild_index(dir.path(), Options::default()).unwrap());
        let commands = open(dir.path());
        check(&commands).await;
        let last = commands.journal.last();
        commands.begin(start(1, &values)).await.unwrap().commit(None).await.unwrap();
        assert_eq!(commands.journal.last(), last, "once is enough");
        assert!(locked(&commands.under_way).is_empty());
    }

    #[tokio::test]
    async fn of_one_command_at_the_same_time_one_acts() {
        let dir = tempfile::tempdir().unwrap();
        let commands = open(dir.path());
        let acts = (0..20).map(|_| {
            let commands = commands.clone();
            tokio::spawn(async move {
                let turn = commands.begin(release(1)).await.unwrap();
                tokio::task::yield_now().await;
                turn.commit(None).await.unwrap();
                turn.is_again()
            })
        });
        let mut acted = 0;
        for act in acts.collect::<Vec<_>>() {
            acted += u32::from(!act.await.unwrap());
        }
        assert_eq!(acted, 1);
        // Who waits and goes away leaves nothing behind.
        let turn = commands.begin(release(2)).await.unwrap();
        let waiting = tokio::spawn({
            let commands = commands.clone();
            async move { commands.begin(release(2)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert_eq!(is_again(&commands, release(3)).await, Some(false), "others do not wait");
        waiting.abort();
        let _ = waiting.await;
        drop(turn);
        assert!(locked(&commands.under_way).is_empty());
    }

    #[tokio::test]
    async fn what_has_begun_goes_on_when_nobody_waits_for_it() {
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let (done, is_done) = tokio::sync::oneshot::channel();
        let act = to_the_end(async move {
            wait.await.unwrap();
            done.send(()).unwrap();
        });
        let asker = tokio::spawn(act);
        tokio::task::yield_now().await;
        asker.abort();
        assert!(asker.await.is_err());
        go.send(()).unwrap();
        is_done.await.unwrap();
    }
}
