//! Quantities with their units, and limits on them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A physical unit that a recipe's limits and a device's measurements may carry.
///
/// Values are integral, so that a limit compares exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unit {
    /// Millivolts.
    #[serde(rename = "mV")]
    Millivolts,
    /// Microamperes.
    #[serde(rename = "uA")]
    Microamperes,
    /// Hertz.
    #[serde(rename = "Hz")]
    Hertz,
    /// Thousandths of a degree Celsius.
    #[serde(rename = "mdegC")]
    MillidegreesCelsius,
    /// A plain number.
    #[serde(rename = "count")]
    Count,
}

impl Unit {
    const ALL: [Unit; 5] =
        [Unit::Millivolts, Unit::Microamperes, Unit::Hertz, Unit::MillidegreesCelsius, Unit::Count];

    /// Its symbol, as written in recipes and sent by devices.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Millivolts => "mV",
            Self::Microamperes => "uA",
            Self::Hertz => "Hz",
            Self::MillidegreesCelsius => "mdegC",
            Self::Count => "count",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Does not start with an integer.
    #[error("must be an integer and a unit, as in \"3300mV\"")]
    Number,
    /// A unit that is not known.
    #[error("has the unit {0:?}, known are mV uA Hz mdegC count")]
    Unit(String),
}

impl FromStr for Unit {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::ALL
            .into_iter()
            .find(|unit| unit.symbol() == text)
            .ok_or_else(|| QuantityError::Unit(text.to_owned()))
    }
}

/// An integral value with its unit, written `3300mV`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    /// In `unit`.
    pub value: i64,
    /// What it counts.
    pub unit: Unit,
}

impl FromStr for Quantity {
    type Err = QuantityError;
    /// Blanks between number and unit are allowed: `3300 mV`.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '-')).unwrap_or(text.len());
        let value = text[..digits].parse().map_err(|_| QuantityError::Number)?;
        Ok(Self { value, unit: text[digits..].trim_start().parse()? })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.value, self.unit)
    }
}

/// A closed interval of values that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    min: i64,
    max: i64,
    unit: Unit,
}

/// Why two quantities are not limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// Different units.
    #[error("min is in {min}, max in {max}")]
    Units {
        /// Of the lower limit.
        min: Unit,
        /// Of the upper limit.
        max: Unit,
    },
    /// Nothing could pass.
    #[error("min is above max")]
    Empty,
}

impl Limits {
    /// Both ends belong to the interval.
    pub fn new(min: Quantity, max: Quantity) -> Result<Self, LimitsError> {
        if min.unit != max.unit {
            return Err(LimitsError::Units { min: min.unit, max: max.unit });
        }
        if min.value > max.value {
            return Err(LimitsError::Empty);
        }
        Ok(Self { min: min.value, max: max.value, unit: min.unit })
    }

    /// The smallest value that passes.
    pub fn min(&self) -> Quantity {
        Quantity { value: self.min, unit: self.unit }
    }

    /// The largest value that passes.
    pub fn max(&self) -> Quantity {
        Quantity { value: self.max, unit: self.unit }
    }

    /// Whether a quantity passes; one in another unit does not.
    pub fn hold(&self, quantity: Quantity) -> bool {
        quantity.unit == self.unit && (self.min..=self.max).contains(&quantity.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(min: &str, max: &str) -> Result<Limits, LimitsError> {
        Limits::new(min.parse().expect("a quantity"), max.parse().expect("a quantity"))
    }

    #[test]
    fn limits_hold_their_ends_and_nothing_beyond() {
        let rail = limits("3135mV", "3465mV").expect("limits");
        for (text, within) in
            [("3135mV", true), ("3465 mV", true), ("3134mV", false), ("3466mV", false), ("3300uA", false)]
        {
            assert_eq!(rail.hold(text.parse().expect("a quantity")), within, "{text}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        assert_eq!(limits("2mV", "1mV"), Err(LimitsError::Empty));
        assert!(matches!(limits("1mV", "2uA"), Err(LimitsError::Units { .. })));
        for bad in ["", "mV", "3.3mV", "3300", "3300V", "99999999999999999999mV", "1-2mV"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_quantity_survives_its_text(value: i64, unit in prop::sample::select(&Unit::ALL[..])) {
            let quantity = Quantity { value, unit };
            prop_assert_eq!(quantity.to_string().parse(), Ok(quantity));
        }
    }
}
