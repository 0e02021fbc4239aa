//! Certificate requests, good and bad, written byte by byte: rcgen refuses to write most of the bad ones.

use factory_proto::signer::{IssueRequest, SignHeadRequest};
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use uuid::Uuid;
use yasna::{DERWriter, Tag, models::ObjectIdentifier};

use crate::orders;

pub const ENDPOINT: &str = "0123456789abcdef";

pub const CN: &[u64] = &[2, 5, 4, 3];
pub const O: &[u64] = &[2, 5, 4, 10];
pub const EMAIL: &[u64] = &[1, 2, 840, 113549, 1, 9, 1];
pub const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
pub const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113549, 1, 9, 14];
const CHALLENGE_PASSWORD: &[u64] = &[1, 2, 840, 113549, 1, 9, 7];

/// What a request says; `Default` is a good one.
pub struct Csr<'a> {
    pub version: u8,
    pub subject: &'a [(&'a [u64], &'a str)],
    /// Object identifier and content, DER.
    pub extensions: &'a [(&'a [u64], &'a [u8])],
    pub challenge_password: bool,
    pub signature_algorithm: &'a [u64],
    pub null_parameter: bool,
}

impl Default for Csr<'_> {
    fn default() -> Self {
        Self {
            version: 0,
            subject: &[(CN, ENDPOINT)],
            extensions: &[],
            challenge_password: false,
            signature_algorithm: ECDSA_WITH_SHA256,
            null_parameter: false,
        }
    }
}

impl Csr<'_> {
    /// The request, signed with `key`.
    pub fn signed_by(&self, key: &KeyPair) -> Vec<u8> {
        let info = self.info(key);
        let signature = key.sign(&info).unwrap();
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&info);
                writer.next().write_sequence(|writer| {
                    oid(writer.next(), self.signature_algorithm);
                    if self.null_parameter {
                        writer.next().write_null();
                    }
                });
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        })
    }

    fn info(&self, key: &KeyPair) -> Vec<u8> {
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_u8(self.version);
                writer.next().write_sequence(|writer| {
                    for (attribute, text) in self.subject {
                        writer.next().write_set(|writer| {
                            writer.next().write_sequence(|writer| {
                                oid(writer.next(), attribute);
                                writer.next().write_utf8_string(text);
                            });
                        });
                    }
                });
                writer.next().write_der(&key.subject_public_key_info());
                writer.next().write_tagged_implicit(Tag::context(0), |writer| {
                    writer.write_set(|writer| {
                        if self.challenge_password {
                            attribute(writer.next(), CHALLENGE_PASSWORD, |writer| {
                                writer.write_utf8_string("secret");
                            });
                        }
                        if !self.extensions.is_empty() {
                            attribute(writer.next(), EXTENSION_REQUEST, |writer| {
                                self.write_extensions(writer)
                            });
                        }
                    });
                });
            });
        })
    }

    fn write_extensions(&self, writer: DERWriter<'_>) {
        writer.write_sequence(|writer| {
            for (id, content) in self.extensions {
                writer.next().write_sequence(|writer| {
                    oid(writer.next(), id);
                    writer.next().write_bytes(content);
                });
            }
        });
    }
}

fn oid(writer: DERWriter<'_>, arcs: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(arcs));
}

fn attribute(writer: DERWriter<'_>, id: &[u64], value: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|writer| {
        oid(writer.next(), id);
        writer.next().write_set(|writer| value(writer.next()));
    });
}

/// A key of the kind that devices make.
pub fn p256() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// A key of any kind.
pub fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// What a station would send with this request, as an issuance of its own.
pub fn issue(certificate_request: Vec<u8>) -> IssueRequest {
    IssueRequest {
        issuance_id: Uuid::now_v7().to_string(),
        work_order: orders::USUAL.to_owned(),
        endpoint_name: ENDPOINT.to_owned(),
        certificate_request,
        supersedes: String::new(),
        recipe_digest: orders::RECIPE.to_vec(),
    }
}

/// What a station would send for the device of this name, which has a key of its own.
pub fn unit(endpoint: &str) -> IssueRequest {
    let csr = Csr { subject: &[(CN, endpoint)], ..Csr::default() }.signed_by(&p256());
    IssueRequest { endpoint_name: endpoint.to_owned(), ..issue(csr) }
}

/// The first head of a station's log.
pub fn head(station: &str) -> SignHeadRequest {
    SignHeadRequest {
        station: station.to_owned(),
        log_id: vec![1; 16],
        first_sequence: 1,
        last_sequence: 9,
        chain_hash: vec![2; 32],
        merkle_root: vec![3; 32],
        closed_runs: 1,
        time: 1_764_000_000_000,
    }
}
