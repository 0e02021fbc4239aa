//! Whatever comes as the list of an order's units: it is a list of which each unit can be named, or a refusal that people can
//! read.
#![no_main]

use factory_station::unit_list::UnitList;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match UnitList::read(bytes.to_vec()) {
        Ok(list) => {
            assert!(!list.is_empty() && list.len() <= bytes.len());
            assert_eq!(list.iter().count(), list.len());
            for (serial, values) in list.iter() {
                assert_eq!(list.values(serial), Some(values));
                for (name, value) in values.iter() {
                    assert!(name != "serial" && name.len() <= 32 && value.len() <= 256);
                    assert!(!value.contains(char::is_control));
                }
            }
        }
        // Twenty complaints, each of which shows the beginning of one text.
        Err(error) => assert!(error.to_string().len() <= 20 * 800, "{error}"),
    }
});
