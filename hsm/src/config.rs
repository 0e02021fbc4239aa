//! The signer's configuration file (TOML): as written, and as meant.
//!
//! Knows nothing of what the values are used for. Every mistake is reported with file, line and key.

use std::{
    fmt, fs, io,
    num::NonZeroUsize,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use humantime::format_duration;
use serde::Deserialize;
use toml::Spanned;

use crate::profile::{MINIMUM_LIFETIME, Subject, YEAR};

/// What PKCS#11 keeps of a token's label (CK_TOKEN_INFO, PKCS#11 v2.40 section 3.2).
const TOKEN_LABEL_LIMIT: usize = 32;
/// More owner threads than that only fill the token's session table.
const SESSION_LIMIT: usize = 64;

/// How the signer is set up, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The Unix socket that is served.
    pub socket: PathBuf,
    /// The PKCS#11 module: a shared library.
    pub module: PathBuf,
    /// The token's label.
    pub token_label: String,
    /// Where the user PIN is: a credential's name or an absolute path.
    pub pin_credential: PathBuf,
    /// Where the security officer's PIN is; only needed by `init` on a fresh token.
    pub so_pin_credential: Option<PathBuf>,
    /// The label of the CA's key pair in the token.
    pub ca_key_label: String,
    /// The CA's certificate, PEM; written by `init`.
    pub ca_certificate: PathBuf,
    /// How long a device certificate is valid; [`MINIMUM_LIFETIME`] to 100 years.
    pub certificate_lifetime: Duration,
    /// Sessions with the token, each with a thread that owns it.
    pub sessions: NonZeroUsize,
    /// How long one signature may take, waiting in the queue included.
    pub sign_deadline: Duration,
    /// Who may ask, by user id; `None`: the signer's own user and root.
    pub allowed_uids: Option<Vec<u32>>,
    /// What a certificate's subject holds besides the CN.
    pub subject: Subject,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AsWritten {
    socket: PathBuf,
    module: PathBuf,
    token_label: Spanned<String>,
    pin_credential: PathBuf,
    so_pin_credential: Option<PathBuf>,
    ca_key_label: Spanned<String>,
    ca_certificate: PathBuf,
    certificate_lifetime: Option<Spanned<String>>,
    sessions: Option<Spanned<usize>>,
    sign_deadline: Option<Spanned<String>>,
    allowed_uids: Option<Vec<u32>>,
    #[serde(default)]
    subject: SubjectAsWritten,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SubjectAsWritten {
    organization: Option<Spanned<String>>,
    country: Option<Spanned<String>>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {} cannot be read: name the right file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file can be read and is wrong.
    #[error("{0}")]
    Wrong(Complaints),
}

/// All that is wrong with a file, in the order of its lines.
#[derive(Debug)]
pub struct Complaints {
    path: PathBuf,
    by_line: Vec<(usize, String)>,
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (line, complaint)) in self.by_line.iter().enumerate() {
            let end_of_last = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{}:{line}: {complaint}", self.path.display())?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
            .map_err(|by_line| ConfigError::Wrong(Complaints { path: path.to_owned(), by_line }))
    }

    /// Checks a configuration's text; all complaints come with their line.
    fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let written: AsWritten = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            vec![(line, error.message().to_owned())]
        })?;
        written.checked().map_err(|mut complaints| {
            complaints.sort_by_key(|(offset, _)| *offset);
            complaints.into_iter().map(|(offset, complaint)| (line_of(offset), complaint)).collect()
        })
    }
}

impl AsWritten {
    /// What is meant, or every complaint with its offset into the file.
    fn checked(self) -> Result<Config, Vec<(usize, String)>> {
        let mut complaints = Vec::new();
        let mut complain = |at: usize, complaint: String| complaints.push((at, complaint));

        let label_length = self.token_label.get_ref().len();
        if !(1..=TOKEN_LABEL_LIMIT).contains(&label_length) {
            let limit =
                format!("token-label is {label_length} bytes long, 1 to {TOKEN_LABEL_LIMIT} are allowed");
            complain(self.token_label.span().start, limit);
        }
        if self.ca_key_label.get_ref().is_empty() {
            complain(self.ca_key_label.span().start, "ca-key-label must not be empty".to_owned());
        }

        let certificate_lifetime = duration(
            "certificate-lifetime",
            self.certificate_lifetime,
            20 * YEAR,
            MINIMUM_LIFETIME..=100 * YEAR,
            &mut complain,
        );
        let sign_deadline = duration(
            "sign-deadline",
            self.sign_deadline,
            Duration::from_secs(10),
            Duration::from_millis(1)..=Duration::from_secs(600),
            &mut complain,
        );
        let sessions = self.sessions.unwrap_or(Spanned::new(0..0, 2));
        if !(1..=SESSION_LIMIT).contains(sessions.get_ref()) {
            complain(sessions.span().start, format!("sessions must be 1 to {SESSION_LIMIT}"));
        }
        let subject = self.subject.checked(&mut complain);

        if !complaints.is_empty() {
            return Err(complaints);
        }
        Ok(Config {
            socket: self.socket,
            module: self.module,
            token_label: self.token_label.into_inner(),
            pin_credential: self.pin_credential,
            so_pin_credential: self.so_pin_credential,
            ca_key_label: self.ca_key_label.into_inner(),
            ca_certificate: self.ca_certificate,
            certificate_lifetime,
            sessions: NonZeroUsize::new(sessions.into_inner()).expect("between 1 and the limit"),
            sign_deadline,
            allowed_uids: self.allowed_uids,
            subject,
        })
    }
}

/// The duration written down, the default if there is none or a wrong one.
fn duration(
    key: &str,
    written: Option<Spanned<String>>,
    default: Duration,
    allowed: RangeInclusive<Duration>,
    complain: &mut impl FnMut(usize, String),
) -> Duration {
    let Some(written) = written else { return default };
    let complaint = match humantime::parse_duration(written.get_ref()) {
        Ok(duration) if allowed.contains(&duration) => return duration,
        Ok(_) => {
            let (least, most) = (format_duration(*allowed.start()), format_duration(*allowed.end()));
            format!("{key} must be {least} to {most}")
        }
        Err(error) => {
            format!("{key} is no duration ({error}), write it like \"{}\"", format_duration(default))
        }
    };
    complain(written.span().start, complaint);
    default
}

impl SubjectAsWritten {
    fn checked(self, complain: &mut impl FnMut(usize, String)) -> Subject {
        let mut subject = Subject::default();
        if let Some(organization) = self.organization {
            match organization.get_ref().parse() {
                Ok(name) => subject.organization = Some(name),
                Err(error) => complain(organization.span().start, format!("organization {error}")),
            }
        }
        if let Some(country) = self.country {
            match country.get_ref().parse() {
                Ok(code) => subject.country = Some(code),
                Err(error) => complain(country.span().start, format!("country {error}")),
            }
        }
        subject
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"socket = "/run/factory-signerd/signer.sock"
module = "/usr/lib/softhsm/libsofthsm2.so"
token-label = "factory"
pin-credential = "user-pin"
ca-key-label = "device-identity-ca"
ca-certificate = "/var/lib/factory-signerd/ca.pem"
"#;

    fn complaints(text: &str) -> Vec<String> {
        let path = PathBuf::from("signer.toml");
        let by_line = Config::parse(text).expect_err("must be refused");
        Complaints { path, by_line }.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.sessions.get(), 2);
        assert_eq!(config.certificate_lifetime, humantime::parse_duration("20y").unwrap());
        assert_eq!(config.subject, Subject::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let found = complaints(&format!("{GOOD}sesions = 3\n"));
        assert!(found[0].starts_with("signer.toml:7: unknown field `sesions`"), "{found:?}");
    }

    #[test]
    fn every_wrong_value_is_reported_at_once_in_the_order_of_lines() {
        let found = complaints(&format!(
            "{GOOD}certificate-lifetime = \"9y\"\nsessions = 0\nsign-deadline = \"soon\"\n\
             [subject]\ncountry = \"Germany\"\norganization = \"\"\n"
        ));
        let starts = [
            "signer.toml:7: certificate-lifetime must be 10years to 100years",
            "signer.toml:8: sessions must be 1 to 64",
            "signer.toml:9: sign-deadline is no duration",
            "signer.toml:11: country ",
            "signer.toml:12: organization ",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found:?} does not start with {start:?}");
        }
    }
}
