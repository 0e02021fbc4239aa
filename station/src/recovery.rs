//! Before a station starts: what its journal says of the past. Reads from the last checkpoint on, does nothing to units.

use factory_journal::{Journal, JournalError, Sequence};

use crate::{
    books::{Books, OpenRun},
    phase::IllegalRecord,
    record::{CHECKPOINTS, Record, RunId},
};

// Read in about a tenth of a second; a checkpoint is a record of a few hundred bytes for each open order.
const CHECKPOINT_EVERY: u64 = 20_000;

/// Why the journal's story could not be continued.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// It cannot be read or written.
    #[error("the journal cannot be continued")]
    Journal(#[from] JournalError),
    /// It tells what cannot be.
    #[error("the journal tells what cannot be; keep it, and start with another state folder")]
    Story(#[from] IllegalRecord),
}

/// All that must be known of the past. Blocks while it reads.
pub fn recover(journal: &Journal<Record>) -> Result<Books, RecoveryError> {
    Ok(fold(journal)?.0)
}

/// What is known of a run without a result; `None` when it has one, or was never opened. Blocks while it reads.
pub fn open_run(journal: &Journal<Record>, run: RunId) -> Result<Option<OpenRun>, RecoveryError> {
    let mut books = Books::default();
    for sequence in journal.by_run(&run.to_string())? {
        if let Some(entry) = journal.get(sequence)? {
            books.learn(entry.record)?;
        }
    }
    Ok(books.open.remove(&run))
}

/// Journals what the past comes to, if enough has happened since that was done last: the next start then reads from
/// here on.
pub async fn checkpoint(journal: &Journal<Record>) -> Result<(), RecoveryError> {
    let reader = journal.clone();
    let folded =
        tokio::task::spawn_blocking(move || fold(&reader)).await.map_err(|_| JournalError::Closed)?;
    let (books, covers, since) = folded?;
    if since >= CHECKPOINT_EVERY {
        journal.append(Record::Checkpoint(Box::new(books.checkpoint(covers)))).await?;
    }
    Ok(())
}

/// The books up to the last record, which record that is, and how many there are since the last checkpoint.
fn fold(journal: &Journal<Record>) -> Result<(Books, Sequence, u64), RecoveryError> {
    let (mut books, covered) = last_checkpoint(journal)?;
    let mut last = covered;
    for entry in journal.read(covered.next()) {
        let entry = entry?;
        books.learn(entry.record)?;
        last = entry.sequence;
    }
    Ok((books, last, last.get() - covered.get()))
}

fn last_checkpoint(journal: &Journal<Record>) -> Result<(Books, Sequence), RecoveryError> {
    let Some(newest) = journal.by_run(CHECKPOINTS)?.pop() else {
        return Ok((Books::default(), Sequence::START));
    };
    let Some(Record::Checkpoint(checkpoint)) = journal.get(newest)?.map(|entry| entry.record) else {
        return Ok((Books::default(), Sequence::START));
    };
    let (covers, open) = (checkpoint.covers, checkpoint.open.clone());
    let mut books = Books::at(*checkpoint);
    for run in open {
        for sequence in journal.by_run(&run)?.into_iter().filter(|sequence| *sequence <= covers) {
            if let Some(entry) = journal.get(sequence)? {
                books.learn(entry.record)?;
            }
        }
    }
    Ok((books, covers))
}
