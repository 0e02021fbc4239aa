//! `[[profile]]`: what certificates say.

use std::time::Duration;

use factory_settings::{Table, Value, list, text};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};

use super::{lifetime, subject, within};
use crate::profile::{
    Subject, YEAR,
    device::{Kind, Profile},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Reads one profile; what it does not say of subject and lifetime is as in the file.
pub fn profile(profile: &mut Table<'_>, common: &Subject, common_lifetime: Duration) -> Option<Profile> {
    let name = profile.required("name", text);
    let kind: Option<String> = profile.required("kind", text);
    let subject = subject(profile);
    let organizational_unit = profile.optional("organizational-unit", text);
    let kind = match kind?.as_str() {
        "bootstrap" => client(profile, common_lifetime),
        "lwm2m" => {
            if organizational_unit == Some(None) {
                profile.complain(
                    "organizational-unit",
                    "is missing: it must be the account id, which the device checks",
                );
            }
            client(profile, common_lifetime)
        }
        "idevid" => idevid(profile),
        "custom" => custom(profile),
        _ => {
            profile.complain("kind", "is none of bootstrap, lwm2m, idevid, custom");
            None
        }
    };
    let subject = subject?;
    let subject = Subject {
        organization: subject.organization.or_else(|| common.organization.clone()),
        organizational_unit: organizational_unit?,
        country: subject.country.or_else(|| common.country.clone()),
    };
    Some(Profile { name: name?, subject, kind: kind? })
}

fn client(profile: &mut Table<'_>, common: Duration) -> Option<Kind> {
    Some(Kind::Client { lifetime: profile.or("lifetime", common, lifetime)? })
}

fn idevid(profile: &mut Table<'_>) -> Option<Kind> {
    Some(Kind::IDevId { hardware_type: profile.required("hardware-type", oid)? })
}

fn custom(profile: &mut Table<'_>) -> Option<Kind> {
    let lifetime = profile.required("lifetime", within(DAY..=100 * YEAR));
    let usual = vec![KeyUsagePurpose::DigitalSignature];
    let key_usages = profile.or("key-usages", usual, list(key_usage));
    if key_usages.as_ref().is_some_and(Vec::is_empty) {
        profile.complain("key-usages", "names none: leave it out for digital-signature");
    }
    let extended_key_usages = profile.or("extended-key-usages", Vec::new(), list(extended_key_usage));
    Some(Kind::Custom {
        lifetime: lifetime?,
        key_usages: key_usages?,
        extended_key_usages: extended_key_usages?,
    })
}

fn oid(value: &Value<'_>) -> Option<Vec<u64>> {
    let written: String = text(value)?;
    let arcs: Option<Vec<u64>> = written.split('.').map(|arc| arc.parse().ok()).collect();
    // X.660: the first arc is 0, 1 or 2, and the second one below 40 but for 2.
    let good =
        |arcs: &Vec<u64>| arcs.len() <= 32 && matches!(arcs[..], [0 | 1, 0..40, ..] | [2, 0..1_000_000, ..]);
    let arcs = arcs.filter(good);
    arcs.or_else(|| value.complain("must be an object identifier, such as 1.3.6.1.4.1.99999.1"))
}

fn key_usage(value: &Value<'_>) -> Option<KeyUsagePurpose> {
    match text::<String>(value)?.as_str() {
        "digital-signature" => Some(KeyUsagePurpose::DigitalSignature),
        "content-commitment" => Some(KeyUsagePurpose::ContentCommitment),
        "key-agreement" => Some(KeyUsagePurpose::KeyAgreement),
        _ => value.complain("must be digital-signature, content-commitment or key-agreement"),
    }
}

fn extended_key_usage(value: &Value<'_>) -> Option<ExtendedKeyUsagePurpose> {
    match text::<String>(value)?.as_str() {
        "client-auth" => Some(ExtendedKeyUsagePurpose::ClientAuth),
        "server-auth" => Some(ExtendedKeyUsagePurpose::ServerAuth),
        "code-signing" => Some(ExtendedKeyUsagePurpose::CodeSigning),
        _ => value.complain("must be client-auth, server-auth or code-signing"),
    }
}
