//! A unit's own values on the command line.

use std::str::FromStr;

use factory_station::recipe::template::{ValueError, Values};

/// As in `mac=00:11`.
#[derive(Debug, Clone)]
pub struct NamedValue {
    /// What a recipe's texts ask for.
    pub name: String,
    /// What is put there.
    pub value: String,
}

impl FromStr for NamedValue {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (name, value) = text.split_once('=').ok_or("must be a name and a value, as in mac=00:11")?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// All of them together.
pub fn values(named: &[NamedValue]) -> Result<Values, ValueError> {
    let mut values = Values::default();
    named.iter().try_for_each(|NamedValue { name, value }| values.add(name, value))?;
    Ok(values)
}
