//! Whether a token is fit for production, said in sentences.
//!
//! Nothing is tried that could do harm: the PIN is judged as it is written, and used once.

use std::fmt;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::role::{Role, RoleName};
use crate::{
    authority::Authority,
    chain,
    config::Config,
    credential::Pin,
    profile::{Validity, YEAR},
    provenance,
    token::{
        TokenError,
        commission::{ExistingKey, LoggedIn},
        module::{Module, Token},
    },
};

/// Without one of these the signer cannot work; named as PKCS#11 does.
const MECHANISMS: [&str; 2] = ["CKM_ECDSA", "CKM_EC_KEY_PAIR_GEN"];
/// What must be true of a key, and what it would mean if it were not.
const ATTRIBUTES: [(&str, bool, &str); 9] = [
    ("Sign", true, "cannot sign"),
    ("Sensitive", true, "can be read out in plain text"),
    ("Extractable", false, "can be taken out of the token"),
    ("AlwaysSensitive", true, "could once be read out in plain text"),
    ("NeverExtractable", true, "could once be taken out of the token"),
    ("Local", true, "was not made in the token"),
    ("Decrypt", false, "can do more than sign: decrypt"),
    ("Unwrap", false, "can do more than sign: unwrap keys"),
    ("Derive", false, "can do more than sign: derive keys"),
];

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `token`, or the role.
    pub about: String,
    /// Whether it is as it must be.
    pub fit: bool,
    /// What it is, and what to do if it is not fit.
    pub sentence: String,
}

/// All that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report(Vec<Finding>);

impl Report {
    /// Whether everything is as it must be.
    pub fn is_fit(&self) -> bool {
        self.0.iter().all(|finding| finding.fit)
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let finding = |it: &Finding| json!({ "about": it.about, "fit": it.fit, "sentence": it.sentence });
        json!({ "fit": self.is_fit(), "findings": self.0.iter().map(finding).collect::<Vec<_>>() })
    }

    fn good(&mut self, about: &str, sentence: impl Into<String>) {
        self.0.push(Finding { about: about.to_owned(), fit: true, sentence: sentence.into() });
    }

    fn bad(&mut self, about: &str, sentence: impl Into<String>) {
        self.0.push(Finding { about: about.to_owned(), fit: false, sentence: sentence.into() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { about, fit, sentence } in &self.0 {
            writeln!(f, "{}  {about}: {sentence}", if *fit { "ok " } else { "BAD" })?;
        }
        f.write_str(if self.is_fit() { "fit for production" } else { "NOT fit for production" })
    }
}

/// Looks at the token and at every role of the signer's file.
///
/// # Errors
/// There is no such module or token.
pub fn judge(config: &Config, pin: &Pin, now: OffsetDateTime) -> Result<Report, TokenError> {
    let module = Module::load(&config.module)?;
    let token = module.token(&config.token_label)?;
    let mut report = Report::default();
    judge_token(&mut report, &module, &token, pin);
    // A PIN that was refused must not be tried for the next role.
    match LoggedIn::new(&module, &token, pin) {
        Ok(logged_in) => {
            for role in Role::all(config) {
                judge_role(&mut report, &module, &token, pin, &role, config, now);
            }
            drop(logged_in);
        }
        Err(error) => report.bad("token", error.to_string()),
    }
    module.finalize()?;
    Ok(report)
}

fn judge_token(report: &mut Report, module: &Module, token: &Token, pin: &Pin) {
    report.good("token", format!("{:?}, serial {}, {}", token.label, token.serial, token.hardware));
    if token.user_pin_locked {
        report.bad("token", "the PIN is locked: let the security officer set a new one");
    } else if token.user_pin_last_try {
        report.bad(
            "token",
            "the PIN has one try left: log in by hand with the right one, so that it counts anew",
        );
    } else if token.user_pin_count_low {
        report.bad("token", "a wrong PIN was tried since the last right one: find out by whom");
    }
    if token.user_pin_to_be_changed {
        report.bad("token", "the token wants its PIN to be changed: it is the manufacturer's");
    }
    match pin.weakness() {
        Some(weakness) => report.bad("token", format!("the PIN {weakness}: have another one set")),
        None => report.good("token", "the PIN is none that everybody knows"),
    }
    match module.mechanisms(token) {
        Ok(there) => {
            for wanted in MECHANISMS {
                if !there.iter().any(|mechanism| mechanism == wanted) {
                    report.bad(
                        "token",
                        format!("it has no {wanted}: use another token, or another firmware of it"),
                    );
                }
            }
            report.good("token", format!("it has {} mechanisms", there.len()));
        }
        Err(error) => report.bad("token", format!("{error}: its mechanisms are not known")),
    }
}

fn judge_role(
    report: &mut Report,
    module: &Module,
    token: &Token,
    pin: &Pin,
    role: &Role<'_>,
    config: &Config,
    now: OffsetDateTime,
) {
    let about = role.name.to_string();
    let key = match ExistingKey::open(module, token, pin, &role.key.key_label) {
        Ok(key) => key,
        Err(error) => return report.bad(&about, error.to_string()),
    };
    let before = report.0.len();
    for (name, wanted, meaning) in ATTRIBUTES {
        match key.attributes().get(name) {
            Some(value) if value == wanted => {}
            Some(_) => report.bad(&about, format!("its key {meaning} (CKA {name}): make a new key and CA")),
            None => {
                report.bad(&about, format!("the token does not say whether its key {meaning} (CKA {name})"))
            }
        }
    }
    if report.0.len() == before {
        report.good(&about, "its key was made in the token, cannot leave it, and can only sign");
    }
    match judge_certificate(role, config, key.point(), now) {
        Ok(sentence) => report.good(&about, sentence),
        Err(sentence) => report.bad(&about, sentence),
    }
}

fn judge_certificate(
    role: &Role<'_>,
    config: &Config,
    point: &[u8],
    now: OffsetDateTime,
) -> Result<String, String> {
    let path = role.key.certificate.display();
    let (own, validity, years) = if role.is_authority() {
        let authority = Authority::read(&role.key.certificate).map_err(|error| error.to_string())?;
        judge_profiles(role, config, &authority, now)?;
        (authority.point().to_vec(), authority.validity(), 10)
    } else {
        let (point, validity) = provenance::read(&role.key.certificate).map_err(|error| error.to_string())?;
        (point, validity, 1)
    };
    let Validity { not_before, not_after } = validity;
    if own != point {
        return Err(format!("certificate {path} is for another key: correct `key-label` or `certificate`"));
    }
    if now < not_before {
        return Err(format!(
            "certificate {path} is not valid before {}: see that the clock is right",
            not_before.date()
        ));
    }
    if now + YEAR * years > not_after {
        return Err(format!(
            "certificate {path} is valid until {}, less than {years} years from now: make a new one in time",
            not_after.date()
        ));
    }
    chain::check_dates(&chain::read(&role.key.certificate)?, now)
        .map_err(|fault| format!("{path}: {fault}"))?;
    Ok(format!("certificate {path} is its key's, and valid until {}", not_after.date()))
}

/// Whether the CA can do what the signer's file wants of it.
fn judge_profiles(
    role: &Role<'_>,
    config: &Config,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<(), String> {
    let RoleName::Authority(name) = &role.name else { return Ok(()) };
    let own = config.authorities.iter().find(|ca| ca.name == *name).and_then(|ca| ca.profiles.as_ref());
    for profile in config.profiles.iter().filter(|it| own.is_none_or(|names| names.contains(&it.name))) {
        if !authority.may_issue(profile) {
            return Err(format!(
                "it cannot issue by profile {}, whose extended key usages are not among the CA's: name others in \
                 `profiles` of the [[authority]], or have another CA made",
                profile.name
            ));
        }
        profile.validity(now, authority.validity()).map_err(|fault| fault.to_string())?;
    }
    Ok(())
}
