//! The append-only log that is the truth about every run, with an index that can be deleted and rebuilt.
//!
//! A [`Journal`] is a directory:
//!
//! ```text
//! journal/segment-00000000000000000001.log   the truth, named after its first record; bytes: see `segment`
//! journal/segment-00000000000000004711.log
//! journal/archive/segment-….log.zst          closed and acknowledged segments, compressed; bytes: see `archive`
//! journal/index/                             what can be rebuilt from it (sled); may be deleted at any time
//! journal/reserve                            space to finish what is under way when the disk is full
//! journal/lock                               held while a process has the journal open
//! ```
//!
//! What [`Journal::append`] has answered survives the process and the power; nothing else is promised. Reading never
//! disturbs writing: [`Journal::read`] walks over what is durable now, a [`Follower`] waits for what comes.

mod archive;
mod audit;
mod committer;
mod compaction;
mod error;
mod export;
mod files;
mod follower;
mod import;
mod index;
mod journal;
pub mod log;
mod period;
mod reader;
mod record;
mod recovery;
mod reindex;
pub mod segment;
mod space;
mod store;
mod tail;

pub use audit::{Audit, Finding};
pub use committer::Statistics;
pub use compaction::{Compaction, compact_offline};
pub use error::JournalError;
pub use export::export;
pub use files::{SegmentFile, segment_files};
pub use follower::Follower;
pub use import::import;
pub use journal::{Journal, Options};
pub use record::{Entry, Keys, Record, Sequence};
pub use space::Room;
