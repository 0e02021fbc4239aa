//! The signer: PKCS#11, key ceremony, certificate profiles and CSR policy.
