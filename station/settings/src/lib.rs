//! Reads the TOML files people write for us; reports every mistake at once, with its line.
//!
//! A file is described by a function over its root [`Table`]. Ask for every key first, then combine: what went
//! wrong is collected on the way, and keys nobody asked for become complaints too.
//!
//! ```
//! use factory_settings::{duration, integer, list, parse, path, table, text, Table};
//! use std::{net::SocketAddr, num::NonZeroU8, path::PathBuf, time::Duration};
//!
//! struct Station { listen: SocketAddr, nests: Vec<Nest> }
//! struct Nest { console: PathBuf, attempts: NonZeroU8, deadline: Duration }
//!
//! fn station(file: &mut Table<'_>) -> Option<Station> {
//!     let listen = file.required("listen", text);
//!     let nests = file.required("nest", list(table(nest)));
//!     Some(Station { listen: listen?, nests: nests? })
//! }
//!
//! fn nest(nest: &mut Table<'_>) -> Option<Nest> {
//!     let console = nest.required("console", path);
//!     let attempts = nest.or("attempts", NonZeroU8::MIN, integer);
//!     let deadline = nest.or("deadline", Duration::from_secs(5), duration);
//!     Some(Nest { console: console?, attempts: attempts?, deadline: deadline? })
//! }
//!
//! let written = r#"
//! listen = "localhost"
//! [[nest]]
//! console = "console-1"
//! deadlin = "7s"
//! "#;
//! let complaints = parse("/etc/factory/station.toml", written, station).err().unwrap();
//! assert_eq!(complaints.to_string(), "\
//! /etc/factory/station.toml:2: key `listen`: invalid socket address syntax
//! /etc/factory/station.toml:5: key `nest[1].deadlin`: unknown key, did you mean `deadline`?");
//! ```

mod complaint;
mod table;
mod value;

use std::path::{Path, PathBuf};

pub use complaint::{Complaint, Complaints};
pub use table::Table;
pub use value::{Value, duration, flag, integer, list, path, table, tables_by_name, text, text_or_integer};

/// Why a file gave no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file could not be read at all.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read, but what it says cannot be used.
    #[error(transparent)]
    Refused(#[from] Complaints),
}

/// Reads the file at `path` and gives what `meaning` makes of it.
///
/// # Errors
/// The file cannot be read, or there are complaints about it.
pub fn read<T>(
    path: impl AsRef<Path>,
    meaning: impl FnOnce(&mut Table<'_>) -> Option<T>,
) -> Result<T, SettingsError> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    Ok(parse(path, &text, meaning)?)
}

/// Gives what `meaning` makes of `text`, which was found in the file `path`.
///
/// The file itself is not touched: its name stands in the complaints, and paths in the text start from its folder.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse<T>(
    path: impl AsRef<Path>,
    text: &str,
    meaning: impl FnOnce(&mut Table<'_>) -> Option<T>,
) -> Result<T, Complaints> {
    let path = path.as_ref();
    let (root, errors) = toml::de::DeTable::parse_recoverable(text);
    let page = value::Page::new(path.parent().unwrap_or(Path::new("")), text);
    let value = Table::read(&page, String::new(), 0, root.get_ref(), meaning);

    let complaints = Complaints::new(path, page.syntax_complaints(&errors), page.into_complaints());
    match value {
        Some(value) if complaints.is_empty() => Ok(value),
        _ => Err(complaints),
    }
}
