//! What was done at a ceremony, for the record: text for people, JSON for machines.

use std::{fmt, path::PathBuf};

use data_encoding::{HEXLOWER, HEXUPPER};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::role::RoleName;
use crate::token::{commission::KeyAttributes, module::Token};

/// What was done, with which token.
#[derive(Debug)]
pub struct Transcript {
    /// The verb.
    pub act: &'static str,
    /// When.
    pub time: OffsetDateTime,
    /// The module, as it describes itself.
    pub module: String,
    /// The token.
    pub token: Token,
    /// What the token can do, in PKCS#11's words.
    pub mechanisms: Vec<String>,
    /// The keys that were touched.
    pub entries: Vec<Entry>,
}

/// A role's key, and what there is of its certificate.
#[derive(Debug)]
pub struct Entry {
    /// What it is for.
    pub role: RoleName,
    /// Its label in the token.
    pub key_label: String,
    /// As the token gives them back.
    pub attributes: KeyAttributes,
    /// The public key (SEC 1, uncompressed).
    pub point: Vec<u8>,
    /// Its certificate, and where that lies.
    pub certificate: Option<(PathBuf, CertificateDer<'static>)>,
    /// Where the request lies that a root is to sign.
    pub request: Option<PathBuf>,
}

impl Transcript {
    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "act": self.act,
            "time": rfc3339(self.time),
            "program": format!("factory-signerd {}", env!("CARGO_PKG_VERSION")),
            "module": self.module,
            "token": {
                "label": self.token.label, "serial": self.token.serial, "hardware": self.token.hardware,
                "mechanisms": self.mechanisms,
            },
            "keys": self.entries.iter().map(Entry::json).collect::<Vec<_>>(),
        })
    }
}

impl Entry {
    fn json(&self) -> Value {
        let attributes: serde_json::Map<_, _> =
            self.attributes.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        json!({
            "role": self.role.to_string(),
            "label": self.key_label,
            "attributes": attributes,
            "public-key-sha256": HEXLOWER.encode(&Sha256::digest(&self.point)),
            "certificate": self.certificate.as_ref().map(|(path, certificate)| json!({
                "path": path,
                "sha256": HEXLOWER.encode(&Sha256::digest(certificate)),
                "subject": of(certificate, |it| it.subject().to_string()),
                "issuer": of(certificate, |it| it.issuer().to_string()),
                "serial": of(certificate, |it| HEXUPPER.encode(it.raw_serial())),
                "not-before": of(certificate, |it| rfc3339(it.validity().not_before.to_datetime())),
                "not-after": of(certificate, |it| rfc3339(it.validity().not_after.to_datetime())),
            })),
            "request": self.request,
        })
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "module        {}", self.module)?;
        writeln!(f, "token         {:?}, serial {}", self.token.label, self.token.serial)?;
        writeln!(f, "              {}", self.token.hardware)?;
        write!(f, "mechanisms    {}", self.mechanisms.join(" "))?;
        self.entries.iter().try_for_each(|entry| write!(f, "\n{entry}"))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "role          {}", self.role)?;
        writeln!(f, "key           {:?}, P-256", self.key_label)?;
        writeln!(f, "              {}", self.attributes)?;
        write!(f, "  SHA-256     {}", with_colons(&Sha256::digest(&self.point)))?;
        if let Some((path, certificate)) = &self.certificate {
            writeln!(f, "\ncertificate   {}", path.display())?;
            writeln!(f, "  subject     {}", of(certificate, |it| it.subject().to_string()))?;
            writeln!(f, "  issuer      {}", of(certificate, |it| it.issuer().to_string()))?;
            writeln!(f, "  serial      {}", of(certificate, |it| HEXUPPER.encode(it.raw_serial())))?;
            let date = |time: x509_parser::time::ASN1Time| time.to_datetime().date().to_string();
            writeln!(f, "  valid from  {}", of(certificate, |it| date(it.validity().not_before)))?;
            writeln!(f, "        to    {}", of(certificate, |it| date(it.validity().not_after)))?;
            write!(f, "  SHA-256     {}", with_colons(&Sha256::digest(certificate)))?;
        }
        match &self.request {
            Some(path) => write!(f, "\nrequest       {}", path.display()),
            None => Ok(()),
        }
    }
}

/// Something that a certificate says, which was checked before it came here.
fn of(certificate: &CertificateDer<'_>, what: impl FnOnce(&X509Certificate<'_>) -> String) -> String {
    X509Certificate::from_der(certificate).map_or_else(|_| String::new(), |(_, parsed)| what(&parsed))
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn with_colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| HEXUPPER.encode(&[*byte])).collect::<Vec<_>>().join(":")
}
