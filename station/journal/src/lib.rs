//! The append-only log that is the truth about every run, with an index that can be deleted and rebuilt.
