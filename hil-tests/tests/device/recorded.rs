//! The payloads recorded from the real device program, shared with the station's tests.

use data_encoding::HEXLOWER;

pub const KEY_BY_STATION: &str = include_str!("key-by-station.request.hex");
pub const CSR_REQUEST: &str = include_str!("../../../fixtures/src/fcc/testdata/csr.request.hex");
pub const CSR_ANSWER: &str = include_str!("../../../fixtures/src/fcc/testdata/csr.answer.hex");
pub const BUNDLE_REQUEST: &str = include_str!("../../../fixtures/src/fcc/testdata/bundle.request.hex");
pub const SUCCESS_ANSWER: &str = include_str!("../../../fixtures/src/fcc/testdata/success.answer.hex");

/// The bytes that a recording spells.
pub fn bytes(lines: &str) -> Vec<u8> {
    HEXLOWER.decode(lines.replace('\n', "").as_bytes()).unwrap()
}
