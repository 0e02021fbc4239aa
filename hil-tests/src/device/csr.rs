//! Certificate requests as the device makes them, oddities included (FCC protocol, section 9): a NULL
//! parameter in the signature algorithm, and an empty subject when the device did not understand it.

use serde::Deserialize;

use super::{keys::PrivateKey, store::Bytes};

const OID_ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const OID_EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
const OID_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const OID_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const OID_ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
/// id-kp; one more byte names the purpose.
const OID_KEY_PURPOSE: [u8; 7] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03];
/// id-ecPublicKey with prime256v1, as an AlgorithmIdentifier's content.
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const ATTRIBUTES: u8 = 0xa0;

/// The usages to ask for, as the protocol's bit masks; absent ones are left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usages {
    /// 1 digitalSignature, 2 nonRepudiation, 4 keyCertSign, 8 keyAgreement.
    pub key: Option<i128>,
    /// 1 any, 2 serverAuth, 4 clientAuth, 8 codeSigning, 16 emailProtection, 256 timeStamping, 512 OCSPSigning.
    pub extended: Option<i128>,
}

/// How a device makes its requests; the real one does as it is asked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Habits {
    /// Stands for the subject that is asked for.
    pub subject: Option<String>,
    /// They are for another key than the one that is stored, and signed with that.
    pub another_key: bool,
    /// Every key that it makes is this one, PKCS#8: its random numbers are none.
    pub same_key: Option<Bytes>,
}

/// A PKCS#10 request, signed by its own key.
pub fn make(key: &PrivateKey, subject: &str, usages: Usages) -> Vec<u8> {
    let public = [vec![0], key.public_point().to_vec()].concat();
    let body = tlv(
        SEQUENCE,
        &[
            tlv(INTEGER, &[0]),
            name(subject).unwrap_or_else(|| tlv(SEQUENCE, &[])),
            tlv(SEQUENCE, &[tlv(SEQUENCE, P256), tlv(BIT_STRING, &public)].concat()),
            tlv(ATTRIBUTES, &extension_request(usages)),
        ]
        .concat(),
    );
    let algorithm = tlv(SEQUENCE, &[tlv(OID, OID_ECDSA_WITH_SHA256), tlv(NULL, &[])].concat());
    let signature = tlv(BIT_STRING, &[vec![0], key.sign(&body)].concat());
    tlv(SEQUENCE, &[body, algorithm, signature].concat())
}

/// `C=GB,O=Org,CN=name` as a Name, in that order; none if any part is not understood.
fn name(subject: &str) -> Option<Vec<u8>> {
    let mut parts = Vec::new();
    for part in subject.split(',') {
        let (key, value) = part.trim_start().split_once('=')?;
        // Attribute types are 2.5.4.x.
        let (attribute, string) = match key {
            "CN" => (3, UTF8),
            "serialNumber" => (5, PRINTABLE),
            "C" => (6, PRINTABLE),
            "L" => (7, UTF8),
            "ST" => (8, UTF8),
            "O" => (10, UTF8),
            "OU" => (11, UTF8),
            _ => return None,
        };
        let pair = [tlv(OID, &[0x55, 0x04, attribute]), tlv(string, value.as_bytes())].concat();
        parts.extend(tlv(SET, &tlv(SEQUENCE, &pair)));
    }
    Some(tlv(SEQUENCE, &parts))
}

fn extension_request(usages: Usages) -> Vec<u8> {
    let key = usages.key.map(|mask| extension(OID_KEY_USAGE, &key_usage(mask)));
    let extended = usages.extended.map(|mask| extension(OID_EXTENDED_KEY_USAGE, &extended_key_usage(mask)));
    let extensions: Vec<u8> = key.into_iter().chain(extended).flatten().collect();
    if extensions.is_empty() {
        return extensions;
    }
    let list = tlv(SET, &tlv(SEQUENCE, &extensions));
    tlv(SEQUENCE, &[tlv(OID, OID_EXTENSION_REQUEST), list].concat())
}

fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[tlv(OID, oid), tlv(OCTET_STRING, value)].concat())
}

fn key_usage(mask: i128) -> Vec<u8> {
    let bits = [(1, 0x80), (2, 0x40), (8, 0x08), (4, 0x04)];
    let byte: u8 = bits.iter().filter(|(asked, _)| mask & asked != 0).map(|(_, bit)| bit).sum();
    let unused = u8::try_from(byte.trailing_zeros().min(7)).expect("at most seven");
    tlv(BIT_STRING, &[unused, byte])
}

fn extended_key_usage(mask: i128) -> Vec<u8> {
    let purposes = [(2, 1), (4, 2), (8, 3), (16, 4), (256, 8), (512, 9)];
    let mut list = if mask & 1 != 0 { tlv(OID, OID_ANY_USAGE) } else { Vec::new() };
    for (_, purpose) in purposes.iter().filter(|(asked, _)| mask & asked != 0) {
        list.extend(tlv(OID, &[OID_KEY_PURPOSE.as_slice(), &[*purpose]].concat()));
    }
    tlv(SEQUENCE, &list)
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..0x80) => out.push(short),
        Ok(one) => out.extend([0x81, one]),
        Err(_) => {
            let two = u16::try_from(content.len()).expect("a request is far below 64 KiB");
            out.push(0x82);
            out.extend(two.to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}
