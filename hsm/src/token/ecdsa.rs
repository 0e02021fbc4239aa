//! From the token's form of an ECDSA signature to the one in certificates.

use super::TokenError;

/// r and s of P-256.
const RAW_LENGTH: usize = 64;

/// Turns r‖s (PKCS#11 v2.40, section 2.3.1) into DER `Ecdsa-Sig-Value` (RFC 3279, section 2.2.3).
pub fn raw_to_der(raw: &[u8]) -> Result<Vec<u8>, TokenError> {
    if raw.len() != RAW_LENGTH {
        return Err(TokenError::Answer { what: "a P-256 signature", length: raw.len() });
    }
    let (r, s) = raw.split_at(RAW_LENGTH / 2);
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(r, true);
            writer.next().write_bigint_bytes(s, true);
        });
    }))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{
            ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
        },
    };
    use proptest::prelude::*;

    use super::*;

    /// INTEGER as X.690 section 8.3 has it, spelled out.
    fn reference_integer(number: &[u8]) -> Vec<u8> {
        let mut content: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        if content.first().is_none_or(|byte| *byte >= 0x80) {
            content.insert(0, 0);
        }
        [&[0x02, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
    }

    fn reference(raw: &[u8]) -> Vec<u8> {
        let body = [reference_integer(&raw[..32]), reference_integer(&raw[32..])].concat();
        [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
    }

    proptest! {
        #[test]
        fn every_signature_is_written_as_x690_says(
            mut raw in proptest::collection::vec(any::<u8>(), 64),
            zeros_of_r in 0usize..=32,
            zeros_of_s in 0usize..=32,
        ) {
            raw[..zeros_of_r].fill(0);
            raw[32..32 + zeros_of_s].fill(0);
            prop_assert_eq!(raw_to_der(&raw).unwrap(), reference(&raw));
        }

        #[test]
        fn a_signature_of_any_other_length_is_refused(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(raw_to_der(&raw).is_ok(), raw.len() == 64);
        }
    }

    #[test]
    fn a_converted_signature_verifies() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let raw = key.sign(&SystemRandom::new(), b"message").unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref());
        assert!(public.verify(b"message", &raw_to_der(raw.as_ref()).unwrap()).is_ok());
        assert!(public.verify(b"message", raw.as_ref()).is_err());
    }
}
