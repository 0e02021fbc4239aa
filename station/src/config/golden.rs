//! What the station file says of golden units.

use std::collections::BTreeMap;

use factory_proto::ids::{RecipeName, Serial};
use factory_settings::{Table, flag, list, table, text};

use crate::{golden::Rule, provenance::Occasions};

/// The section, held against the ends of shifts, which are those of the log's heads.
pub fn golden(file: &mut Table<'_>, provenance: Option<&Occasions>) -> Option<Rule> {
    let section = file.or("golden", (false, BTreeMap::new()), table(section));
    let (required, units) = section?;
    let shift_ends = provenance?.shift_ends.clone();
    if required && shift_ends.is_empty() {
        file.complain(
            "golden",
            "needs the ends of shifts: name them in `provenance.shift-ends`, or say `required = false`",
        );
        return None;
    }
    Some(Rule { required, units, shift_ends })
}

fn section(golden: &mut Table<'_>) -> Option<(bool, BTreeMap<Serial, RecipeName>)> {
    let required = golden.or("required", true, flag);
    let named = golden.required("unit", list(table(unit)))?;
    let mut units = BTreeMap::new();
    for (serial, recipe) in named {
        if units.insert(serial.clone(), recipe).is_some() {
            golden.complain("unit", format!("{serial} is there twice"));
        }
    }
    if units.is_empty() {
        golden.complain("unit", "there must be at least one: without it no nest could be proven");
    }
    Some((required?, units))
}

fn unit(unit: &mut Table<'_>) -> Option<(Serial, RecipeName)> {
    let serial = unit.required("serial", text);
    let recipe = unit.required("recipe", text);
    Some((serial?, recipe?))
}
