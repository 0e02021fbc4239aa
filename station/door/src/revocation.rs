//! The lists of what CAs have withdrawn, PEM, read anew while we serve: an older list does not replace a newer one.
//!
//! Knows neither who is withdrawn, nor whether a list is signed by its CA, which is seen when somebody is judged by it.

use std::{collections::HashMap, path::Path};

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use tracing::warn;
use x509_parser::{
    oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
    prelude::{CertificateRevocationList, FromDer as _},
    time::ASN1Time,
};

use crate::files::{TlsError, read};

/// The lists in force, with those that were and may come back: of each CA the newest that was ever in the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Newest(HashMap<Scope, List>);

type List = CertificateRevocationListDer<'static>;

/// Which certificates a list is about: those of an issuer, or the part of them that it names (RFC 5280, section 5.2.5).
type Scope = (Vec<u8>, Option<Vec<u8>>);

impl Newest {
    /// The lists in a file, where one is named. One whose time is over is taken: it lets nobody in. In place of one that is
    /// older than another of its CA that was in the file before, that one stays.
    pub(crate) fn read(&mut self, section: &'static str, path: Option<&Path>) -> Result<Vec<List>, TlsError> {
        let Some(path) = path else { return Ok(Vec::new()) };
        let empty = || TlsError::Empty { section, path: path.to_owned(), what: "revocation list" };
        let text = read(section, path)?;
        let lists: Result<Vec<_>, _> = List::pem_slice_iter(&text).collect();
        let lists = lists.map_err(|_| empty())?;
        if lists.is_empty() {
            return Err(empty());
        }
        Ok(lists.into_iter().map(|list| self.newer(path, list)).collect())
    }

    /// The list, or the newer one that was there before.
    fn newer(&mut self, path: &Path, list: List) -> List {
        // What cannot be read is refused by those who are to judge by it.
        let Ok((_, come)) = CertificateRevocationList::from_der(&list) else { return list };
        let scope = scope(&come);
        let before = self.0.get(&scope).and_then(|before| CertificateRevocationList::from_der(before).ok());
        if let Some((_, before)) = before.filter(|(_, before)| is_older(&come, before)) {
            warn!(
                path = %path.display(), issuer = %come.issuer(), came = age(&come), stays = age(&before),
                "a revocation list is older than the one in force, which stays"
            );
            warn_if_over(path, &before);
            return self.0[&scope].clone();
        }
        warn_if_over(path, &come);
        self.0.insert(scope, list.clone());
        list
    }
}

fn scope(list: &CertificateRevocationList<'_>) -> Scope {
    let part = list.extensions().iter().find(|it| it.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
    (list.issuer().as_raw().to_vec(), part.map(|part| part.value.to_vec()))
}

/// By their numbers, which never fall; where one has none, by their times.
fn is_older(list: &CertificateRevocationList<'_>, other: &CertificateRevocationList<'_>) -> bool {
    match (list.crl_number(), other.crl_number()) {
        (Some(number), Some(other)) => number < other,
        _ => list.last_update() < other.last_update(),
    }
}

fn age(list: &CertificateRevocationList<'_>) -> String {
    let of = list.last_update();
    list.crl_number()
        .map_or_else(|| format!("without a number, of {of}"), |number| format!("number {number}, of {of}"))
}

fn warn_if_over(path: &Path, list: &CertificateRevocationList<'_>) {
    if let Some(next) = list.next_update().filter(|next| *next < ASN1Time::now()) {
        warn!(
            path = %path.display(), %next,
            "a revocation list is past its next update: until there is a new one, nobody whom its CA vouches for is taken"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{
        CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, Issuer, KeyIdMethod,
        KeyPair, SerialNumber, date_time_ymd,
    };

    use super::*;

    // By `openssl ca -gencrl`, whose lists have no number unless it is told so.
    const OF_2025: &str = "-----BEGIN X509 CRL-----\n\
        MIG8MGMCAQEwCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2EXDTI1MDEwMTAwMDAw\n\
        MFoYDzIxMjUwMTAxMDAwMDAwWqAjMCEwHwYDVR0jBBgwFoAUoW2ybkJSUFm9y3/v\n\
        EGBIexjOyU4wCgYIKoZIzj0EAwIDSQAwRgIhAOGgBlmfGtCSJ9VQqd3TUcAdAsfz\n\
        hTV07sRmmP4S0bgzAiEAvz/XFHBwegHreaxbxGsXsxaTLgIr/C4ccTgBn1xPHPo=\n\
        -----END X509 CRL-----\n";
    const OF_2026: &str = "-----BEGIN X509 CRL-----\n\
        MIG7MGMCAQEwCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2EXDTI2MDEwMTAwMDAw\n\
        MFoYDzIxMjUwMTAxMDAwMDAwWqAjMCEwHwYDVR0jBBgwFoAUoW2ybkJSUFm9y3/v\n\
        EGBIexjOyU4wCgYIKoZIzj0EAwIDSAAwRQIgUyAuwEAARCpG2M2eIo/0lt856SgK\n\
        gZqPc5d2CuCnM3kCIQDKvQyLX4IOVDamsIzyICByI1pxQ7N/tqKCwGWQVk6imw==\n\
        -----END X509 CRL-----\n";

    /// A list of a CA with this number, of the beginning of a year.
    fn numbered(ca: &str, number: u64, year: i32) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, ca);
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(2125, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        list.signed_by(&issuer).unwrap().pem().unwrap()
    }

    /// When the file held one after the other of these, the lists of the last text are in force.
    fn check(files: &[&str], in_force: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.crl");
        let (mut newest, mut lists) = (Newest::default(), Vec::new());
        for file in files {
            fs::write(&path, file).unwrap();
            lists = newest.read("tls", Some(&path)).unwrap();
        }
        let wanted: Result<Vec<_>, _> = List::pem_slice_iter(in_force.as_bytes()).collect();
        assert_eq!(lists, wanted.unwrap(), "{files:?}");
    }

    #[test]
    fn an_older_list_does_not_replace_a_newer_one() {
        let [seven, eight, again] = [(7, 2026), (8, 2025), (8, 2024)].map(|(n, of)| numbered("ca", n, of));
        check(&[&seven, &eight], &eight);
        check(&[&eight, &seven], &eight);
        check(&[&eight, &again], &again);
        // They are numbers, no texts.
        let ten = numbered("ca", 10, 2026);
        check(&[&eight, &ten], &ten);
        // One of the two has none.
        check(&[OF_2026, OF_2025], OF_2026);
        check(&[OF_2025, OF_2026], OF_2026);
        let nine = numbered("ca", 9, 2024);
        check(&[OF_2025, &nine], OF_2025);
        check(&[&seven, OF_2025], &seven);
    }

    #[test]
    fn each_ca_has_a_newest_list_which_is_not_forgotten_while_it_is_not_there() {
        let [seven, eight] = [7, 8].map(|number| numbered("ca", number, 2026));
        let other = numbered("another ca", 1, 2025);
        check(&[&eight, &(other.clone() + &seven)], &(other.clone() + &eight));
        check(&[&eight, &other, &seven], &eight);
        check(&[&eight, &other], &other);
    }
}
