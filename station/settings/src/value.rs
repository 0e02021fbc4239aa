//! One value of a file, and the readers that turn it into what it means.
//!
//! A reader is any function from a [`Value`] to an `Option`; one that gives `None` has complained.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::complaint::{Complaint, MOST};
use crate::table::{Table, join};

/// The text that is being read, and what was found wrong with it so far.
pub(crate) struct Page<'a> {
    folder: &'a Path,
    /// Where lines end.
    ends: Vec<usize>,
    complaints: RefCell<Vec<Complaint>>,
}

impl<'a> Page<'a> {
    pub(crate) fn new(folder: &'a Path, text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { folder, ends, complaints: RefCell::default() }
    }

    pub(crate) fn complain(&self, start: usize, key: String, text: String) {
        self.push(Complaint { line: self.line(start), key: Some(key), text, missing: false });
    }

    pub(crate) fn complain_of_missing(&self, start: usize, key: String) {
        let text = "is missing".to_owned();
        self.push(Complaint { line: self.line(start), key: Some(key), text, missing: true });
    }

    pub(crate) fn syntax_complaints(&self, errors: &[toml::de::Error]) -> Vec<Complaint> {
        let complaint = |error: &toml::de::Error| Complaint {
            line: self.line(error.span().map_or(0, |span| span.start)),
            key: None,
            text: error.message().to_owned(),
            missing: false,
        };
        errors.iter().take(MOST + 1).map(complaint).collect()
    }

    /// Whether nothing more is kept of what is wrong.
    pub(crate) fn is_full(&self) -> bool {
        self.complaints.borrow().len() > MOST
    }

    pub(crate) fn into_complaints(self) -> Vec<Complaint> {
        self.complaints.into_inner()
    }

    fn push(&self, complaint: Complaint) {
        if !self.is_full() {
            self.complaints.borrow_mut().push(complaint);
        }
    }

    fn line(&self, start: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < start)
    }
}

/// A value that is being read: knows its key and its line.
pub struct Value<'a> {
    page: &'a Page<'a>,
    path: String,
    start: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    pub(crate) fn new(
        page: &'a Page<'a>,
        path: String,
        start: usize,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Self {
        Self { page, path, start, value: value.get_ref() }
    }

    /// Complains about this value; gives `None`, so that a reader can end with it.
    pub fn complain<T>(&self, text: impl Into<String>) -> Option<T> {
        self.page.complain(self.start, self.path.clone(), text.into());
        None
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        self.complain(format!("must be {expected}, not {}", name_of_type(self.value)))
    }
}

/// Reads text that means a `T`: a string, a name, an address, a voltage, a word out of a choice.
pub fn text<T>(value: &Value<'_>) -> Option<T>
where
    T: FromStr<Err: Display>,
{
    match value.value {
        DeValue::String(text) => {
            text.parse().map_or_else(|error: T::Err| value.complain(error.to_string()), Some)
        }
        _ => value.wrong_type("a string"),
    }
}

/// Reads a whole number of any width, also the `NonZero` ones.
pub fn integer<T>(value: &Value<'_>) -> Option<T>
where
    T: FromStr<Err: Display>,
{
    let DeValue::Integer(integer) = value.value else {
        return value.wrong_type("an integer");
    };
    let Ok(number) = i128::from_str_radix(integer.as_str(), integer.radix()) else {
        return value.complain(format!("{integer} is too large"));
    };
    let parsed = number.to_string().parse();
    parsed.map_or_else(|error: T::Err| value.complain(format!("{number} does not fit: {error}")), Some)
}

/// Reads text that means a `T`, or a whole number, which is taken as its decimal digits.
pub fn text_or_integer<T>(value: &Value<'_>) -> Option<T>
where
    T: FromStr<Err: Display>,
{
    match value.value {
        DeValue::String(_) => text(value),
        DeValue::Integer(_) => {
            let number: i128 = integer(value)?;
            number.to_string().parse().map_or_else(|error: T::Err| value.complain(error.to_string()), Some)
        }
        _ => value.wrong_type("a string or an integer"),
    }
}

/// Reads `true` or `false`.
pub fn flag(value: &Value<'_>) -> Option<bool> {
    match value.value {
        DeValue::Boolean(flag) => Some(*flag),
        _ => value.wrong_type("true or false"),
    }
}

/// Reads a time span with its unit, such as `"5s"` or `"1m 30s"`.
pub fn duration(value: &Value<'_>) -> Option<Duration> {
    let DeValue::String(text) = value.value else {
        return value.wrong_type("a duration such as \"5s\"");
    };
    match humantime::parse_duration(text) {
        Ok(duration) => Some(duration),
        Err(error) => value.complain(format!("must be a duration such as \"5s\": {error}")),
    }
}

/// Reads a path; a relative one starts from the folder of the file it is written in.
pub fn path(value: &Value<'_>) -> Option<PathBuf> {
    match value.value {
        DeValue::String(text) if text.is_empty() => value.complain("must not be empty"),
        DeValue::String(text) => Some(value.page.folder.join(text.as_ref())),
        _ => value.wrong_type("a path"),
    }
}

/// Reads a list whose elements `reader` reads, also an array of tables (`[[nest]]`).
pub fn list<T>(reader: impl Fn(&Value<'_>) -> Option<T>) -> impl Fn(&Value<'_>) -> Option<Vec<T>> {
    move |value| {
        let DeValue::Array(elements) = value.value else {
            return value.wrong_type("a list");
        };
        let element = |(index, element): (usize, &Spanned<DeValue<'_>>)| {
            let path = format!("{}[{}]", value.path, index + 1);
            reader(&Value::new(value.page, path, element.span().start, element))
        };
        // Every element is read before the first bad one decides.
        let elements: Vec<Option<T>> = elements.iter().enumerate().map(element).collect();
        elements.into_iter().collect()
    }
}

/// Reads a table with `meaning`.
pub fn table<T>(meaning: impl Fn(&mut Table<'_>) -> Option<T>) -> impl Fn(&Value<'_>) -> Option<T> {
    move |value| match value.value {
        DeValue::Table(entries) => {
            Table::read(value.page, value.path.clone(), value.start, entries, &meaning)
        }
        _ => value.wrong_type("a table"),
    }
}

/// Reads a table whose keys are names that the file's author chose, in their alphabetical order.
///
/// `meaning` reads each value, which is a table too, such as `[limits.vdd]` or `vdd = { min = "3135mV" }`.
pub fn tables_by_name<T>(
    meaning: impl Fn(&str, &mut Table<'_>) -> Option<T>,
) -> impl Fn(&Value<'_>) -> Option<Vec<T>> {
    move |value| {
        let DeValue::Table(entries) = value.value else {
            return value.wrong_type("a table");
        };
        let mut all = Vec::new();
        for (name, entry) in entries {
            let path = join(&value.path, name.get_ref());
            let entry = Value::new(value.page, path, name.span().start, entry);
            all.push(table(|entry: &mut Table<'_>| meaning(name.get_ref(), entry))(&entry));
        }
        all.into_iter().collect()
    }
}

fn name_of_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
