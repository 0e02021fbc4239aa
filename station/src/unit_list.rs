//! The units of a work order and what each is given for itself: a list that comes with the order, as CSV.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use factory_proto::ids::{IdError, OrderId, Serial};
use sha2::{Digest, Sha256};

use crate::recipe::template::{ValueError, Values};

/// The longest list, in bytes: some 100 000 units.
pub const LONGEST: usize = 16 * 1024 * 1024;
/// All units' values together: in memory a value takes a hundred bytes more than in the list, where it may have none.
const VALUES: usize = 1_000_000;
/// As many complaints as are told at once.
const COMPLAINTS: usize = 20;
/// Characters that people are shown of what is no serial number, which may be as long as the list.
const SHOWN: usize = 40;

/// The units of a work order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitList {
    bytes: Vec<u8>,
    units: BTreeMap<Serial, Values>,
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnitListError {
    /// Too many bytes.
    #[error("is {0} bytes long, at most {LONGEST} are taken; split the order")]
    TooLong(usize),
    /// One complaint each, with its line.
    #[error("{0}")]
    Refused(String),
    /// It was kept, and is not there any more.
    #[error("the list of its units, {}, cannot be read: open the order again under another id", path.display())]
    Unreadable {
        /// Where it was kept.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was kept, and is another now.
    #[error("the list of its units, {}, is not what the order was opened with: restore it", .0.display())]
    Changed(PathBuf),
    /// It cannot be kept.
    #[error("the list of its units cannot be kept as {}; see to the disk", path.display())]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl UnitList {
    /// Reads a list: CSV (RFC 4180) with a line of names, `serial` among them.
    ///
    /// # Errors
    /// Everything that is wrong with it, up to twenty complaints.
    pub fn read(bytes: Vec<u8>) -> Result<Self, UnitListError> {
        if bytes.len() > LONGEST {
            return Err(UnitListError::TooLong(bytes.len()));
        }
        let units = units(&bytes).map_err(|complaints| UnitListError::Refused(complaints.join("; ")))?;
        Ok(Self { bytes, units })
    }

    /// The values of a unit; `None` when it is not in the list.
    pub fn values(&self, serial: &Serial) -> Option<&Values> {
        self.units.get(serial)
    }

    /// All units.
    pub fn iter(&self) -> impl Iterator<Item = (&Serial, &Values)> {
        self.units.iter()
    }

    /// How many units it has.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether it has none, which no list that was read has.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// SHA-256 of its bytes.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    /// Keeps it for an order, durably.
    ///
    /// # Errors
    /// [`UnitListError::Unwritable`]
    pub fn keep(&self, folder: &Path, order: &OrderId) -> Result<(), UnitListError> {
        let path = path(folder, order);
        let unwritable = |source| UnitListError::Unwritable { path: path.clone(), source };
        let write = || {
            fs::create_dir_all(folder)?;
            let new = path.with_extension("new");
            fs::write(&new, &self.bytes)?;
            fs::File::open(&new)?.sync_all()?;
            fs::rename(&new, &path)?;
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(unwritable)
    }

    /// The list that was kept for an order, and that still must have this digest.
    ///
    /// # Errors
    /// It is not there, or another.
    pub fn kept(folder: &Path, order: &OrderId, digest: &[u8; 32]) -> Result<Self, UnitListError> {
        let path = path(folder, order);
        let bytes =
            fs::read(&path).map_err(|source| UnitListError::Unreadable { path: path.clone(), source })?;
        let list = Self::read(bytes)?;
        if list.digest() == *digest { Ok(list) } else { Err(UnitListError::Changed(path)) }
    }
}

fn path(folder: &Path, order: &OrderId) -> PathBuf {
    // An order's id may hold dots, and is no longer than 64 characters.
    folder.join(format!("{order}.csv"))
}

fn units(bytes: &[u8]) -> Result<BTreeMap<Serial, Values>, Vec<String>> {
    // Spreadsheets like to begin with a byte order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = rows.headers().map_err(|error| vec![error.to_string()])?.clone();
    let Some(serial_at) = header.iter().position(|name| name == "serial") else {
        return Err(vec!["line 1 names no column serial".to_owned()]);
    };
    let mut units = BTreeMap::new();
    let mut complaints = Vec::new();
    for row in rows.records() {
        if complaints.len() == COMPLAINTS {
            complaints.push("and maybe more".to_owned());
            break;
        }
        match row.map_err(|error| error.to_string()).and_then(|row| unit(&header, serial_at, &row)) {
            Ok((line, serial, values)) => {
                if units.insert(serial.clone(), values).is_some() {
                    complaints.push(format!("line {line}: unit {serial} is there twice"));
                }
            }
            Err(complaint) => complaints.push(complaint),
        }
        if units.len() * (header.len() - 1) > VALUES {
            return Err(vec![format!(
                "gives more than {VALUES} values; leave out columns, or split the order"
            )]);
        }
    }
    if units.is_empty() && complaints.is_empty() {
        complaints.push("names no unit".to_owned());
    }
    if complaints.is_empty() { Ok(units) } else { Err(complaints) }
}

fn unit(
    header: &csv::StringRecord,
    serial_at: usize,
    row: &csv::StringRecord,
) -> Result<(u64, Serial, Values), String> {
    let line = row.position().map_or(0, csv::Position::line);
    let complain = |text: String| format!("line {line}: {text}");
    let serial = row.get(serial_at).unwrap_or_default();
    let shown = || serial.chars().take(SHOWN).collect::<String>();
    let serial =
        serial.parse().map_err(|error: IdError| complain(format!("serial {:?} {error}", shown())))?;
    let mut values = Values::default();
    let others = header.iter().zip(row).enumerate().filter(|(index, _)| *index != serial_at);
    for (_, (name, value)) in others {
        values.add(name, value).map_err(|error: ValueError| complain(error.to_string()))?;
    }
    Ok((line, serial, values))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        UnitList::read(text.into()).expect_err(text).to_string()
    }

    #[test]
    fn a_list_gives_each_unit_its_values() {
        let text = "\u{feff}mac, serial ,colour\r\n00:11,SN1,\"red, dark\"\r\n\r\n00:12,SN2,\r\n";
        let list = UnitList::read(text.into()).unwrap();
        let value = |serial: &str, name: &str| {
            list.values(&serial.parse().unwrap()).and_then(|it| it.get(name)).map(str::to_owned)
        };
        assert_eq!(value("SN1", "mac").as_deref(), Some("00:11"));
        assert_eq!(value("SN1", "colour").as_deref(), Some("red, dark"));
        assert_eq!(value("SN2", "colour").as_deref(), Some(""));
        assert_eq!(value("SN3", "mac"), None);
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn a_bad_list_is_refused_with_its_lines() {
        let check = |text: &str, wanted: &str| assert_eq!(refused(text), wanted, "{text:?}");
        check("mac\n1\n", "line 1 names no column serial");
        check("serial\n", "names no unit");
        check("serial\nSN1\nSN1\n", "line 3: unit SN1 is there twice");
        check(
            "serial,mac\nSN 1,1\n,2\n",
            "line 2: serial \"SN 1\" holds ' ', only A-Z a-z 0-9 . _ - are allowed; line 3: serial \"\" must not be \
             empty",
        );
        check("serial,order\nSN1,x\n", &format!("line 2: {}", ValueError::Name("order".into())));
        check("serial,mac,mac\nSN1,1,1\n", "line 2: mac is given twice");
        assert!(refused("serial,mac\nSN1\n").contains("found record with 1 fields"));
        // Each of these twenty lines would be told with all of it, written as \u{1b}.
        let long = "\u{1b}".repeat(10_000);
        assert!(refused(&format!("serial,{long}\n{}", "SN1,1\n".repeat(20))).len() < 20 * 500);
        assert!(refused(&format!("serial\n{}", format!("{long}\n").repeat(20))).len() < 20 * 500);
        // 16 MiB of these made 2 GiB.
        let columns: String = (0..2000).map(|column| format!(",v{column}")).collect();
        let rows: String = (0..501).map(|unit| format!("SN{unit}{}\n", ",".repeat(2000))).collect();
        let wanted = "gives more than 1000000 values; leave out columns, or split the order";
        check(&format!("serial{columns}\n{rows}"), wanted);
    }

    #[test]
    fn a_kept_list_is_found_again_unless_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let order = "WO-1.csv".parse().unwrap();
        let list = UnitList::read("serial\nSN1\n".into()).unwrap();
        list.keep(folder.path(), &order).unwrap();
        assert_eq!(UnitList::kept(folder.path(), &order, &list.digest()).unwrap(), list);
        fs::write(path(folder.path(), &order), "serial\nSN2\n").unwrap();
        let changed = UnitList::kept(folder.path(), &order, &list.digest()).unwrap_err();
        assert!(matches!(changed, UnitListError::Changed(_)), "{changed}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = UnitList::read(bytes);
        }
    }
}
