//! One table of a file while it is read: hands out its values and knows which keys were asked for.

use toml::de::DeTable;

use crate::value::{Page, Value};

/// A table that is being read.
///
/// Every method that gives `None` has complained, so a caller may combine the results with `?` once it has asked
/// for all keys. (Asking on after an early return would be too late: the rest would count as unknown.)
pub struct Table<'a> {
    page: &'a Page<'a>,
    /// From the root of the file on; empty for the root.
    path: String,
    start: usize,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// Lets `meaning` read the table, then complains about the keys it did not ask for.
    pub(crate) fn read<T>(
        page: &'a Page<'a>,
        path: String,
        start: usize,
        entries: &'a DeTable<'a>,
        meaning: impl FnOnce(&mut Table<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut table = Table { page, path, start, entries, known: Vec::new() };
        let value = meaning(&mut table);
        table.complain_of_unknown_keys();
        value
    }

    /// The value of a key that must be there.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        reader: impl FnOnce(&Value<'_>) -> Option<T>,
    ) -> Option<T> {
        match self.value(key) {
            Some(value) => reader(&value),
            None => {
                self.page.complain_of_missing(self.start, self.path_of(key));
                None
            }
        }
    }

    /// The value of a key that may be absent: `Some(None)` when it is, `None` when it is there and wrong.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        reader: impl FnOnce(&Value<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.value(key) {
            Some(value) => reader(&value).map(Some),
            None => Some(None),
        }
    }

    /// The value of a key, or `default` where it is absent.
    pub fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        reader: impl FnOnce(&Value<'_>) -> Option<T>,
    ) -> Option<T> {
        self.optional(key, reader).map(|value| value.unwrap_or(default))
    }

    /// Complains about the value of `key`, at its line, or at the table's where it is absent.
    pub fn complain(&self, key: &str, text: impl Into<String>) {
        let start = self.entries.get_key_value(key).map_or(self.start, |(key, _)| key.span().start);
        self.page.complain(start, self.path_of(key), text.into());
    }

    /// The element's name among its siblings, such as `limits.vdd` or `nest[2]`; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let (name, value) = self.entries.get_key_value(key)?;
        Some(Value::new(self.page, self.path_of(key), name.span().start, value))
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn complain_of_unknown_keys(&self) {
        for (name, _) in self.entries {
            if self.page.is_full() {
                return;
            }
            let key = name.get_ref().as_ref();
            if !self.known.contains(&key) {
                self.page.complain(name.span().start, self.path_of(key), unknown(key, &self.known));
            }
        }
    }
}

/// The path of `key` in the table at `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn unknown(key: &str, known: &[&str]) -> String {
    // Two slips of the finger are a typing mistake, more is another word.
    let near = known.iter().map(|other| (strsim::damerau_levenshtein(key, other), other)).min();
    match near {
        Some((1..=2, other)) => format!("unknown key, did you mean `{other}`?"),
        _ if known.is_empty() => "unknown key, this table has none".to_owned(),
        _ => format!("unknown key, known here: {}", known.join(", ")),
    }
}
