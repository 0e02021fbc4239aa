//! Tokens of pages: where the next one begins, and of which list. Opaque to those who bring them back.

use data_encoding::BASE64URL_NOPAD;
use factory_journal::Sequence;
use factory_proto::station::ListUnitsRequest;
use sha2::{Digest as _, Sha256};

/// A change of what a token holds makes old ones unusable, which a client sees once.
const VERSION: u8 = 1;

/// Which list a page is of: everything that was asked for, but for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListDigest([u8; 8]);

impl ListDigest {
    /// Of a request.
    pub fn of(request: &ListUnitsRequest) -> Self {
        let digest = Sha256::digest(factory_proto::page::list(request));
        Self(*digest.first_chunk().expect("SHA-256 has 32 bytes"))
    }

    /// The token of the page that begins at a record.
    pub fn token(self, begins: Sequence) -> String {
        let bytes = [&[VERSION][..], &begins.get().to_be_bytes(), &self.0].concat();
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Where the page of a token begins.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn begins(self, token: &str) -> Result<Sequence, &'static str> {
        const FOREIGN: &str = "is not from an answer of this station";
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| FOREIGN)?;
        let bytes: [u8; 17] = bytes.try_into().map_err(|_| FOREIGN)?;
        let (version, rest) = bytes.split_first().expect("it has 17 bytes");
        let (begins, list) = rest.split_first_chunk().expect("it has 16 bytes");
        if *version != VERSION {
            return Err(FOREIGN);
        }
        if *list != self.0 {
            return Err("is of another list: ask for the next page of the same one");
        }
        Ok(u64::from_be_bytes(*begins).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_list_only() {
        let list =
            |serial: &str| ListUnitsRequest { serial: serial.to_owned(), ..ListUnitsRequest::default() };
        let digest = ListDigest::of(&list("SN1"));
        let token = digest.token(4711.into());
        assert_eq!(digest.begins(&token), Ok(4711.into()));
        // Frozen: clients keep them over an update of the station.
        assert_eq!(token, "AQAAAAAAABJnX66ofWwasTM");
        let next = ListUnitsRequest { page_token: token.clone(), page_size: 7, ..list("SN1") };
        assert_eq!(ListDigest::of(&next).begins(&token), Ok(4711.into()));
        let other = ListDigest::of(&list("SN2")).begins(&token).unwrap_err();
        assert!(other.contains("is of another list"), "{other}");
        for token in ["", "4711", "AA", "AgAAAAAAABJn", &token[..22], "not base64!"] {
            assert!(digest.begins(token).is_err(), "{token:?}");
        }
    }
}
