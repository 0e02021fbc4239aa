//! A P-256 key pair that the station holds for a device until the device has it: made here, or supplied from
//! outside. Wiped when dropped. Knows no file and no name.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use rcgen::{
    CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use zeroize::Zeroizing;

/// A device's key pair. A secret, hence without `Debug`.
pub struct DeviceKey {
    pair: EcdsaKeyPair,
    der: Zeroizing<Vec<u8>>,
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something else, or of another kind.
    #[error("is no private P-256 key (PKCS#8 or SEC1, PEM or DER)")]
    NoKey,
    /// The system's source of randomness failed.
    #[error("cannot be made: the system gives no random numbers")]
    NoRandomness,
}

impl DeviceKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`]
    pub fn generate() -> Result<Self, KeyError> {
        let none = |_| KeyError::NoRandomness;
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(none)?;
        // The library wipes its own copy.
        let der = Zeroizing::new(pair.to_pkcs8v1().map_err(none)?.as_ref().to_vec());
        Ok(Self { pair, der })
    }

    /// Takes a key, PKCS#8 or SEC1 in DER.
    ///
    /// # Errors
    /// [`KeyError::NoKey`]
    pub fn from_der(der: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der)
            .map_err(|_| KeyError::NoKey)?;
        Ok(Self { pair, der })
    }

    /// The private half as it was supplied, or PKCS#8; DER.
    pub fn der(&self) -> &Zeroizing<Vec<u8>> {
        &self.der
    }

    /// The public half: SubjectPublicKeyInfo, DER.
    pub fn public(&self) -> Vec<u8> {
        let public: PublicKeyX509Der<'_> =
            self.pair.public_key().as_der().expect("a P-256 key can be written");
        public.as_ref().to_vec()
    }

    /// A request for a certificate with this subject, signed with the key; PKCS#10, DER.
    pub fn request(&self, subject: DistinguishedName) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        let request = params.serialize_request(&Signer(&self.pair)).expect("a P-256 key can sign a request");
        request.der().to_vec()
    }
}

/// The key as rcgen uses it, without another copy of it.
struct Signer<'a>(&'a EcdsaKeyPair);

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| rcgen::Error::RemoteKeyError)?.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::DnType;

    use super::*;
    use crate::certificate;

    #[test]
    fn a_key_signs_a_request_for_itself_and_is_read_again() {
        let key = DeviceKey::generate().unwrap();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "sensor-1");
        let request = key.request(subject);
        let name = "sensor-1".parse().unwrap();
        assert_eq!(certificate::check_request(&request, &name), Ok(key.public()));
        let again = DeviceKey::from_der(key.der().clone()).unwrap();
        assert_eq!(again.public(), key.public());
    }

    #[test]
    fn what_is_no_p256_key_is_refused() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_der();
        for wrong in [Vec::new(), b"-----BEGIN".to_vec(), p384] {
            assert_eq!(DeviceKey::from_der(Zeroizing::new(wrong)).err(), Some(KeyError::NoKey));
        }
    }
}
