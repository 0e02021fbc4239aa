use std::{fs, path::PathBuf};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData};

use super::*;

struct Mes {
    key: SigningKey,
    keys: PublicKeys,
}

fn mes() -> Mes {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let pair = KeyPair::generate().unwrap();
    fs::write(path("key.pem"), pair.serialize_pem()).unwrap();
    let public = BASE64.encode(&pair.subject_public_key_info());
    let public = format!("-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n");
    fs::write(path("public.pem"), public).unwrap();
    Mes {
        key: SigningKey::read(&path("key.pem")).unwrap(),
        keys: PublicKeys::read(&[path("public.pem")]).unwrap(),
    }
}

fn allowance() -> Allowance {
    Allowance {
        id: Uuid::from_u128(7),
        station: "line-1".parse().unwrap(),
        units: 20,
        issued: UNIX_EPOCH + Duration::from_secs(100),
        expires: UNIX_EPOCH + Duration::from_secs(200),
    }
}

/// Signs any payload under any header with the MES's key.
fn signed(mes: &Mes, header: &str, payload: &str) -> String {
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = mes.key.sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

#[test]
fn what_the_mes_signed_is_read_as_it_was_meant_and_by_its_key_alone() {
    let mes = mes();
    let text = allowance().sign(&mes.key);
    assert_eq!(Allowance::verify(&text, &mes.keys), Ok(allowance()));
    assert_eq!(Allowance::verify(&text, &self::mes().keys), Err(AllowanceError::Signature));
}

#[test]
fn only_what_an_allowance_says_is_an_allowance_though_the_mes_signed_it() {
    const HEADER: &str = r#"{"alg":"ES256","typ":"factory-allowance+jws"}"#;
    let mes = mes();
    let check = |old: &str, new: &str, sentence: &str| {
        let good = r#"{"jti":"00000000-0000-0000-0000-000000000007","station":"line-1","units":20,"iat":100,"exp":200}"#;
        assert!(good.contains(old), "{old}");
        let read = Allowance::verify(&signed(&mes, HEADER, &good.replacen(old, new, 1)), &mes.keys);
        match read {
            Ok(read) => assert_eq!((read, sentence), (allowance(), "")),
            Err(error) => assert!(!sentence.is_empty() && error.to_string().contains(sentence), "{error}"),
        }
    };
    check("line-1", "line-1", "");
    check("000007", "07", "`jti` that is no UUID");
    check("line-1", "a/b", "`station` that holds '/'");
    check(":20", ":0", "`units` that is not 1 to 100000");
    check(":20", ":100001", "`units` that is not 1 to 100000");
    check(":20", ":-1", "does not say what an allowance says");
    check("200", "99", "`exp` that lies before its `iat`");
    check("200", "2678501", "`exp` that lies more than 31 days after");
    check("200", "253402300800", "`exp` that lies after the year 9999");
    check(",\"exp\":200", "", "missing field `exp`");
    check("\"exp\":200", "\"exp\":200,\"exp\":900", "duplicate field");
    check("\"exp\":200", "\"exp\":200,\"nbf\":1", "unknown field");
    // A work order with the same key is no allowance.
    let other = signed(&mes, r#"{"alg":"ES256","typ":"factory-work-order+jws"}"#, "{}");
    let error = Allowance::verify(&other, &mes.keys).unwrap_err();
    assert!(error.to_string().contains("must have the header"), "{error}");
}

proptest! {
    #[test]
    fn an_altered_allowance_is_never_taken(at in 0_usize..400, with in "[A-Za-z0-9_.=-]") {
        let mes = mes();
        let text = allowance().sign(&mes.key);
        let at = at % text.len();
        let altered = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        prop_assert_eq!(Allowance::verify(&altered, &mes.keys).is_ok(), altered == text);
    }
}
