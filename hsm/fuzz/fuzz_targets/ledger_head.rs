//! Whatever a station brings as the ledger's head, it is read in the one way that it is written, or refused.
#![no_main]

use factory_proto::ledger_head::SignedLedgerHead;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((signed, head)) = SignedLedgerHead::decode(bytes) {
        assert_eq!(signed.encode(), bytes);
        assert_eq!(head.encode(), signed.statement.as_slice());
    }
});
