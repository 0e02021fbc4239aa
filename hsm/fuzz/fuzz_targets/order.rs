//! Whatever comes as a signed work order, the answer is an order or a refusal; nothing unsigned is followed.
#![no_main]

use factory_hsm::order::{OrderKeys, WorkOrder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let nobody = OrderKeys::read(&[]).expect("no file is read");
    assert!(WorkOrder::verify(text, &nobody).is_err());
    if let Ok(order) = WorkOrder::read(text) {
        assert!(order.clone().check().is_ok() && order.units() > 0);
    }
});
