//! Texts with places for what differs from unit to unit, as in `{product}-{serial}`. Does not know what a text is for.

use std::{collections::BTreeMap, fmt, str::FromStr};

use factory_proto::ids::{OrderId, RecipeName, Serial};
use minicbor::{Decode, Encode};

/// The values that every unit has.
pub const OWN: [&str; 3] = ["product", "order", "serial"];
/// The longest value, in bytes.
const LONGEST: usize = 256;
/// Characters that people are shown of what is no name, which may be as long as what it came in.
const SHOWN: usize = 40;

/// What differs from unit to unit.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// `{product}`: the recipe's name.
    pub product: &'a RecipeName,
    /// `{order}`.
    pub order: &'a OrderId,
    /// `{serial}`.
    pub serial: &'a Serial,
    /// Whatever else its order gives it.
    pub values: &'a Values,
}

impl<'a> Unit<'a> {
    /// The value of this name.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        match name {
            "product" => Some(self.product.as_str()),
            "order" => Some(self.order.as_str()),
            "serial" => Some(self.serial.as_str()),
            other => self.values.get(other),
        }
    }
}

/// What an order gives one unit, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Values(#[n(0)] BTreeMap<String, String>);

/// What is no value of a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A name that no template can ask for.
    #[error(
        "{0:?} is no name of a value: use a-z, 0-9 and -, beginning with a letter, at most 32 characters, and none of \
         product, order, serial"
    )]
    Name(String),
    /// Twice the same name.
    #[error("{0} is given twice")]
    Repeated(String),
    /// Not what a device should be given.
    #[error("{name} is {length} bytes long, at most {LONGEST} are allowed")]
    TooLong {
        /// Whose.
        name: String,
        /// Bytes.
        length: usize,
    },
    /// Not what a device should be given.
    #[error("{0} holds a control character")]
    Control(String),
}

impl Values {
    /// Adds a value.
    ///
    /// # Errors
    /// It is none, or is there already.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), ValueError> {
        if !is_name(name) || OWN.contains(&name) {
            return Err(ValueError::Name(name.chars().take(SHOWN).collect()));
        }
        if value.len() > LONGEST {
            return Err(ValueError::TooLong { name: name.to_owned(), length: value.len() });
        }
        if value.contains(char::is_control) {
            return Err(ValueError::Control(name.to_owned()));
        }
        match self.0.insert(name.to_owned(), value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(ValueError::Repeated(name.to_owned())),
        }
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A text with places for values. `{{` and `}}` stand for braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(String),
}

/// What is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Half of a pair.
    #[error("has a single {0:?}; a value is written as in {{serial}}, a brace as {{{{ or }}}}")]
    Brace(char),
    /// No name between braces.
    #[error("asks for a value {{{0}}}, which is no name: use a-z, 0-9 and -, beginning with a letter")]
    Name(String),
}

/// A unit lacks what a text needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "needs the value {{{0}}}, which the unit does not have: give it with the order's list of units, or, where the order \
     has none, at the start"
)]
pub struct NoValue(pub String);

impl Template {
    /// The text for one unit.
    ///
    /// # Errors
    /// It lacks a value.
    pub fn fill(&self, unit: &Unit<'_>) -> Result<String, NoValue> {
        self.fill_with(|name| unit.value(name))
    }

    /// The text with these values.
    ///
    /// # Errors
    /// One is lacking.
    pub fn fill_with<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, NoValue> {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => Ok(text.as_str()),
                Part::Value(name) => value(name).ok_or_else(|| NoValue(name.clone())),
            })
            .collect()
    }

    /// The values that it asks for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(name) => Some(name.as_str()),
        })
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = if rest[at..].starts_with('{') { '{' } else { '}' };
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                plain.push(brace);
                rest = behind;
                continue;
            }
            let (name, behind) = match brace {
                '{' => rest.split_once('}').ok_or(TemplateError::Brace('{'))?,
                _ => return Err(TemplateError::Brace('}')),
            };
            if !is_name(name) {
                return Err(TemplateError::Name(name.to_owned()));
            }
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Value(name.to_owned()));
            rest = behind;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Value(name) => write!(f, "{{{name}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_filled_with_a_units_values() {
        let mut values = Values::default();
        values.add("mac", "00:11").unwrap();
        let (product, order, serial) =
            ("lamp".parse().unwrap(), "WO-1".parse().unwrap(), "SN1".parse().unwrap());
        let unit = Unit { product: &product, order: &order, serial: &serial, values: &values };
        let check = |text: &str, wanted: &str| {
            assert_eq!(text.parse::<Template>().unwrap().fill(&unit).unwrap(), wanted, "{text}");
        };
        check("", "");
        check("plain", "plain");
        check("{product}-{serial}", "lamp-SN1");
        check("{order}/{mac}", "WO-1/00:11");
        check("{{serial}} {serial}", "{serial} SN1");
        check("}}{{", "}{");
        let lacking = "x{colour}".parse::<Template>().unwrap();
        assert_eq!(lacking.fill(&unit), Err(NoValue("colour".into())));
        assert!(lacking.names().eq(["colour"]));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let check = |text: &str, wanted: TemplateError| {
            assert_eq!(text.parse::<Template>(), Err(wanted), "{text}");
        };
        check("{serial", TemplateError::Brace('{'));
        check("serial}", TemplateError::Brace('}'));
        check("{}", TemplateError::Name(String::new()));
        check("{Serial}", TemplateError::Name("Serial".into()));
        check("{a b}", TemplateError::Name("a b".into()));
        check("{{{serial", TemplateError::Brace('{'));
    }

    #[test]
    fn a_value_is_short_printable_and_given_once() {
        let mut values = Values::default();
        values.add("mac", "é").unwrap();
        let long = "x".repeat(257);
        let mut check = |name: &str, value: &str, wanted: ValueError| {
            assert_eq!(values.add(name, value), Err(wanted), "{name}");
        };
        check("mac", "1", ValueError::Repeated("mac".into()));
        check("serial", "1", ValueError::Name("serial".into()));
        check("Mac", "1", ValueError::Name("Mac".into()));
        check("1st", "1", ValueError::Name("1st".into()));
        check("long", &long, ValueError::TooLong { name: "long".into(), length: 257 });
        check("bell", "\u{7}", ValueError::Control("bell".into()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_shown_as_it_was_written(text in "[{}a-z-]{0,24}|.{0,24}") {
            if let Ok(template) = text.parse::<Template>() {
                prop_assert_eq!(template.to_string().parse::<Template>(), Ok(template));
            }
        }
    }
}
