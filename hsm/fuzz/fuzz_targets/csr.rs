//! Whatever a device sends as its certificate request, the answer is a key or a refusal.
#![no_main]

use factory_proto::ids::EndpointName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    let endpoint: EndpointName = "0123456789abcdef".parse().expect("it is a name");
    if let Ok(key) = factory_hsm::csr::check(der, &endpoint) {
        // What is taken from it is a part of it.
        assert!(der.windows(key.spki().len()).any(|window| window == key.spki()));
    }
});
