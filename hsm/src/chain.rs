//! A certificate and those above it: whether they go together. Knows nothing of what they are for.

use std::{fs, path::Path};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A few certificates; what is longer is not read.
const LIMIT: u64 = 64 * 1024;

/// Reads certificates in PEM, at least one; the error says in a few words what is wrong with the file.
pub fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let file = fs::metadata(path).map_err(|error| format!("it cannot be read ({error})"))?;
    if file.len() > LIMIT {
        return Err(format!("it is longer than {LIMIT} bytes"));
    }
    let text = fs::read(path).map_err(|error| format!("it cannot be read ({error})"))?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| "it is no PEM with certificates".to_owned())?;
    if chain.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(chain) }
}

/// Reads a certificate, and nothing behind it.
pub fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, &'static str> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("other bytes follow it"),
        Err(_) => Err("it cannot be parsed"),
    }
}

/// Each must be signed by the next, the last by itself if it is a root; from `first_ca` on, each must be a CA that may stand
/// over those before it. Dates are not looked at.
pub fn check(chain: &[CertificateDer<'_>], first_ca: usize) -> Result<(), &'static str> {
    let parsed = chain.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    if parsed.windows(2).any(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw()) {
        return Err("the certificates are in another order than each before its issuer, or one is missing");
    }
    for (below, ca) in parsed.iter().skip(first_ca).enumerate() {
        if !ca.is_ca() {
            return Err("it is no CA, or one above it is none");
        }
        // One without usages may do everything (RFC 5280, section 4.2.1.3); ours say what they are for.
        let may_sign = match ca.key_usage() {
            Ok(Some(usage)) => usage.value.key_cert_sign(),
            Ok(None) => below + first_ca > 0,
            Err(_) => false,
        };
        if !may_sign {
            return Err("it, or one above it, may not sign certificates");
        }
        let limit = ca.basic_constraints().ok().flatten().and_then(|it| it.value.path_len_constraint);
        if limit.is_some_and(|limit| (limit as usize) < below) {
            return Err("one above it may not have so many CAs below itself (path length)");
        }
    }
    for pair in parsed.windows(2) {
        pair[0].verify_signature(Some(pair[1].public_key())).map_err(|_| "it is not signed by its issuer")?;
    }
    match parsed.last() {
        Some(top) if top.issuer().as_raw() == top.subject().as_raw() => {
            top.verify_signature(None).map_err(|_| "it is not signed by its own key")
        }
        _ => Ok(()),
    }
}

/// All of them must be valid `now`.
pub fn check_dates(chain: &[CertificateDer<'_>], now: OffsetDateTime) -> Result<(), String> {
    for certificate in chain {
        let parsed = parse(certificate)?;
        let (from, to) =
            (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
        if now < from || now > to {
            return Err(format!(
                "the certificate of {} is valid from {} to {} only: have a new one made, or see that the clock is right",
                parsed.subject(),
                from.date(),
                to.date()
            ));
        }
    }
    Ok(())
}
