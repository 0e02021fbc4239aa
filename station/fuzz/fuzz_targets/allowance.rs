//! Whatever comes as a signed allowance: what the MES signed is read as it was signed, in bounds, and nothing else is taken,
//! be it made up or altered.
#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock, time::Duration};

use factory_jws::{PublicKeys, SigningKey};
use factory_station::line::allowance::Allowance;
use libfuzzer_sys::fuzz_target;
use rcgen::KeyPair;

/// What [`PUBLIC`]'s owner signed, once.
const SIGNED: &str = include_str!("../seeds/allowance/signed");
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEI13yW2+sxMtzhuNi4vR61ygro2i\n\
    39Qcf3ed8ue3G901Rm5IspMBLSA5DQKxY2Hniv1LhNNk/QxVpsVvuUAARw==\n\
    -----END PUBLIC KEY-----\n";

/// A key of our own, which signs whatever comes.
static OWN: LazyLock<(SigningKey, PublicKeys)> = LazyLock::new(|| {
    let pair = KeyPair::generate().expect("there is randomness");
    let key = from_file(&pair.serialize_pem(), |path| SigningKey::read(&path));
    (key.expect("it was just made"), public(&pair.public_key_pem()))
});
static MES: LazyLock<PublicKeys> = LazyLock::new(|| public(PUBLIC));

fn public(pem: &str) -> PublicKeys {
    from_file(pem, |path| PublicKeys::read(&[path])).expect("it is a key")
}

fn from_file<T>(text: &str, read: impl Fn(PathBuf) -> T) -> T {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("key.pem");
    fs::write(&path, text).expect("there is room");
    read(path)
}

fuzz_target!(|text: &str| {
    assert_eq!(Allowance::verify(text, &MES).is_ok(), text == SIGNED);

    let (key, keys) = &*OWN;
    let signed = factory_jws::sign("factory-allowance+jws", text.as_bytes(), key);
    assert!(Allowance::verify(&signed, &MES).is_err());
    let Ok(allowance) = Allowance::verify(&signed, keys) else { return };
    assert!((1..=100_000).contains(&allowance.units));
    let life = allowance.expires.duration_since(allowance.issued).expect("it ends after it begins");
    assert!(life <= Duration::from_secs(31 * 24 * 3600));
    assert_eq!(Allowance::verify(&allowance.sign(key), keys), Ok(allowance));
});
