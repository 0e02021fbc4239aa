//! Has the log's heads signed: every so many records, at the end of each shift, and when the station stops.
//!
//! A task of its own. No unit ever waits for it: while the signer is away, heads are made later. Should the
//! signer know a newer head of this log than the log itself, then the log was rolled back: nothing is signed any
//! more, and whoever asks is told.

use std::{
    mem,
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use factory_journal::{Journal, JournalError, Sequence};
use factory_proto::ids::NestName;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    ProvenanceError, RECEIVER,
    draft::Draft,
    shift::{self, ShiftEnd},
    signed::{self, HeadError},
};
use crate::{
    record::Record,
    results::Backlog,
    signer::{Signer, SignerError},
};

const LONGEST_PAUSE: Duration = Duration::from_secs(60);
// A signature takes milliseconds; a signer that needs so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);
// The clock may be set while we sleep.
const GLANCE: Duration = Duration::from_secs(30);
// What a station that stops still gives the signer.
const FAREWELL: Duration = Duration::from_secs(2);

/// When heads are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasions {
    /// After so many records; see [`Occasions::EVERY`].
    pub every: usize,
    /// And at these times.
    pub shift_ends: Vec<ShiftEnd>,
}

impl Occasions {
    /// What `every` may be. A head and its acknowledgement are two records themselves, and must not be enough
    /// for the next one.
    pub const EVERY: RangeInclusive<usize> = 16..=65_536;

    /// Every 256 records, which is every 20 units or so, and at the ends of three shifts.
    pub fn usual() -> Self {
        Self { every: 256, shift_ends: ShiftEnd::USUAL.to_vec() }
    }
}

/// Why no heads are signed at present; clones share it.
#[derive(Clone)]
pub struct Trouble(Arc<watch::Sender<Option<String>>>);

impl Default for Trouble {
    fn default() -> Self {
        Self(Arc::new(watch::channel(None).0))
    }
}

impl Trouble {
    /// For people; `None` when all is well.
    pub fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// What it is as soon as it is not `known` any more.
    pub async fn other_than(&self, known: &Option<String>) -> Option<String> {
        // The sender lives as long as this does.
        let changed = self.0.subscribe().wait_for(|trouble| trouble != known).await.map(|it| it.clone());
        changed.unwrap_or_default()
    }

    fn set(&self, trouble: Option<String>) {
        self.0.send_replace(trouble);
    }
}

#[derive(Debug, thiserror::Error)]
enum NotaryError {
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error("the signer did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the signer signed something else than it was asked for")]
    Other,
    #[error("what the signer gave back is no signed head")]
    Head(#[from] HeadError),
    #[error(transparent)]
    Log(#[from] ProvenanceError),
    #[error("the journal took nothing more")]
    Journal(#[from] JournalError),
    #[error("reading the log was broken off")]
    Broken,
}

impl NotaryError {
    /// Whether trying again would only do harm.
    fn is_final(&self) -> bool {
        matches!(self, Self::Signer(SignerError::OtherHead { .. }) | Self::Log(ProvenanceError::Damaged(_)))
    }
}

/// Has the log's heads signed.
pub struct Notary {
    /// The station's name.
    pub station: NestName,
    /// Where the log lies.
    pub state: PathBuf,
    /// The log.
    pub journal: Arc<Journal<Record>>,
    /// The last record that was there when the log was opened, before this station wrote any.
    pub opened_at: Sequence,
    /// Who signs.
    pub signer: Signer,
    /// Is told of each head, and tells of each result.
    pub backlog: Backlog,
    /// When heads are made.
    pub occasions: Occasions,
    /// Why they are not.
    pub trouble: Trouble,
}

impl Notary {
    /// Works until it is told to stop, and then has the last head signed.
    pub async fn run(self, stop: CancellationToken) {
        let mut draft = None;
        let mut seen = Sequence::START;
        let mut next_end = shift::next(&self.occasions.shift_ends, SystemTime::now());
        // The first head ends where the log did when it was opened: should it have been rolled back, then the signer
        // knows a newer one, however fast the log has grown since.
        let (mut all, mut until) = (true, self.opened_at);
        loop {
            if let Err(error) = self.serve(&mut draft, all, until, &stop).await {
                error!(reason = factory_fixtures::fault::chain(&error), "no head will be signed any more");
                return stop.cancelled().await;
            }
            all = tokio::select! {
                newest = self.backlog.newer_than(seen) => {
                    seen = newest;
                    false
                }
                () = sleep(nap(next_end)) => next_end.is_some_and(|end| end <= SystemTime::now()),
                () = stop.cancelled() => break,
            };
            if all {
                next_end = shift::next(&self.occasions.shift_ends, SystemTime::now());
            }
            // What comes meanwhile, heads among it, is for the next time.
            until = self.journal.last();
        }
        let never = CancellationToken::new();
        let last = self.journal.last();
        match timeout(FAREWELL, self.catch_up(&mut draft, true, last, &never)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(
                    reason = factory_fixtures::fault::chain(&error),
                    "the last records have no signed head yet"
                );
            }
            Err(_) => warn!("the last records have no signed head yet: the signer did not answer in time"),
        }
    }

    /// Makes the heads that are due, until that is done or the station stops; an error is final.
    async fn serve(
        &self,
        draft: &mut Option<Draft>,
        all: bool,
        until: Sequence,
        stop: &CancellationToken,
    ) -> Result<(), NotaryError> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times();
        let mut pause = pauses.build();
        while let Err(error) = self.catch_up(draft, all, until, stop).await {
            let reason = factory_fixtures::fault::chain(&error);
            self.trouble.set(Some(reason.clone()));
            if error.is_final() {
                return Err(error);
            }
            let retry_in = pause.next().unwrap_or(LONGEST_PAUSE);
            warn!(reason, ?retry_in, "heads wait");
            if stop.run_until_cancelled(sleep(retry_in)).await.is_none() {
                return Ok(());
            }
        }
        self.trouble.set(None);
        Ok(())
    }

    /// Makes a head of every so many records up to `until`, and of the rest if `all` is wanted.
    ///
    /// Only the signer is not waited for once the station stops: a head that is being journalled must be known to
    /// be there before another one may cover the same records.
    async fn catch_up(
        &self,
        draft: &mut Option<Draft>,
        all: bool,
        until: Sequence,
        stop: &CancellationToken,
    ) -> Result<(), NotaryError> {
        loop {
            let gathered = self.gather(mem::take(draft), until).await?;
            let enough = gathered.len() >= self.occasions.every || all && !gathered.is_empty();
            let statement = gathered.statement().filter(|_| enough);
            let gathered = draft.insert(gathered);
            let Some(statement) = statement else { return Ok(()) };

            let asked = timeout(PATIENCE, self.signer.sign_head(&statement));
            let Some(answer) = stop.run_until_cancelled(asked).await else { return Ok(()) };
            let head = match answer.map_err(|_| NotaryError::Silent)? {
                // It was signed up to there by a station that died before it could journal that. Asked for
                // once more with just these records, it is the same head, or the log is another.
                Err(SignerError::OtherHead { signed_up_to: Some(end), .. })
                    if (statement.first_sequence..statement.last_sequence).contains(&end) =>
                {
                    let until = Sequence::from(end);
                    *draft = Some(self.gather_at_most(None, until, usize::MAX).await?);
                    return Box::pin(self.catch_up(draft, true, until, stop)).await;
                }
                answer => answer?,
            };
            if signed::check(&head)? != statement {
                return Err(NotaryError::Other);
            }
            let sequence = self.journal.append(Record::HeadSigned(head)).await?;
            self.backlog.reported(sequence);
            self.journal.advance(RECEIVER, statement.last_sequence.into()).await?;
            gathered.begin_next();
            info!(first = statement.first_sequence, last = statement.last_sequence, "head signed");
        }
    }

    async fn gather(&self, draft: Option<Draft>, until: Sequence) -> Result<Draft, NotaryError> {
        self.gather_at_most(draft, until, self.occasions.every).await
    }

    /// Takes records in, elsewhere: it blocks.
    async fn gather_at_most(
        &self,
        draft: Option<Draft>,
        until: Sequence,
        most: usize,
    ) -> Result<Draft, NotaryError> {
        let (state, station) = (self.state.clone(), self.station.to_string());
        let gathered = spawn_blocking(move || {
            let mut draft = match draft {
                Some(draft) => draft,
                None => Draft::open(&state, station, until)?,
            };
            draft.gather(until, most)?;
            Ok::<_, ProvenanceError>(draft)
        });
        Ok(gathered.await.map_err(|_| NotaryError::Broken)??)
    }
}

/// How long to sleep for `end`, but never for long.
fn nap(end: Option<SystemTime>) -> Duration {
    let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok());
    left.map_or(if end.is_some() { Duration::ZERO } else { GLANCE }, |left| left.min(GLANCE))
}
