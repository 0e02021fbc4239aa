//! The calls that give a list a page at a time.

use prost::Message as _;

use crate::station::ListUnitsRequest;

/// What list is asked for, whatever the page: the message without token and size, encoded.
pub fn list(request: &ListUnitsRequest) -> Vec<u8> {
    let list = ListUnitsRequest { page_token: String::new(), page_size: 0, ..request.clone() };
    list.encode_to_vec()
}
