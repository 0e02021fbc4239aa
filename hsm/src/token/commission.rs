//! What is done to a token once, its label, its PIN, the roles' key pairs; and how those are found there afterwards.

use std::fmt;

use aws_lc_rs::{
    rand,
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
};

use sha2::{Digest, Sha256};

use super::{
    TokenError, failed,
    key::SignDigest,
    module::{Module, Token},
    session::{KeySession, find_key, log_in},
};
use crate::credential::Pin;

/// OBJECT IDENTIFIER prime256v1, DER (RFC 5480, section 2.1.1.1): what CKA_EC_PARAMS holds.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// An uncompressed P-256 point (SEC 1, section 2.3.3), and its DER OCTET STRING header.
const POINT_LENGTH: usize = 65;
const POINT_HEADER: [u8; 2] = [0x04, 0x41];

/// Finds the token, or makes it of the one blank token there is; sets its user PIN if it has none.
pub fn prepare(
    module: &Module,
    label: &str,
    user_pin: &Pin,
    so_pin: Option<&Pin>,
) -> Result<Token, TokenError> {
    let token = match module.token(label) {
        Err(missing @ TokenError::NoToken { .. }) => {
            let Some(blank) = module.blank_token()? else { return Err(missing) };
            let so_pin = so_pin.ok_or_else(|| TokenError::NoSoPin(label.to_owned()))?;
            let initialised = module.context().init_token(blank.slot, &so_pin.to_auth(), label);
            initialised.map_err(failed("be initialised"))?;
            module.token(label)?
        }
        found => found?,
    };
    if token.user_pin_set {
        return Ok(token);
    }
    let so_pin = so_pin.ok_or_else(|| TokenError::NoSoPin(label.to_owned()))?;
    let session = module.context().open_rw_session(token.slot).map_err(failed("open a session"))?;
    session
        .login(UserType::So, Some(&so_pin.to_auth()))
        .map_err(failed("log its security officer in: correct `so-pin-credential`"))?;
    session.init_pin(&user_pin.to_auth()).map_err(failed("take the user PIN"))?;
    session.logout().map_err(failed("log its security officer out"))?;
    module.token(label)
}

/// A key pair that has just been made; destroyed when dropped, unless it is kept.
pub struct NewKey {
    session: KeySession,
    public: ObjectHandle,
    point: Vec<u8>,
    attributes: KeyAttributes,
    kept: bool,
}

/// Keeps the user logged in: as long as it is there, the PIN of nobody else in this process is looked at.
pub struct LoggedIn {
    _session: Session,
}

impl LoggedIn {
    /// Tries the PIN, once.
    ///
    /// # Errors
    /// The token refuses it, or may not be asked.
    pub fn new(module: &Module, token: &Token, pin: &Pin) -> Result<Self, TokenError> {
        let session = module.context().open_ro_session(token.slot).map_err(failed("open a session"))?;
        log_in(&session, token, pin)?;
        Ok(Self { _session: session })
    }
}

/// A key pair that was made before.
pub struct ExistingKey {
    session: KeySession,
    point: Vec<u8>,
    attributes: KeyAttributes,
}

impl ExistingKey {
    /// Finds the one key pair with this label, and sees that its halves belong together.
    ///
    /// # Errors
    /// There is none, or there are several, or two halves; or the token does not let us in.
    pub fn open(module: &Module, token: &Token, pin: &Pin, label: &str) -> Result<Self, TokenError> {
        let session = module.context().open_ro_session(token.slot).map_err(failed("open a session"))?;
        log_in(&session, token, pin)?;
        let key = find_key(&session, token, label)?;
        let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Label(label.into())];
        let public = session.find_objects(&template).map_err(failed("look for its keys"))?;
        let [public] = public[..] else {
            let (token, key, count) = (token.label.clone(), label.to_owned(), public.len());
            return Err(TokenError::PublicKeys { token, key, count });
        };
        let (point, attributes) = (read_point(&session, public)?, KeyAttributes::read(&session, key)?);
        let pair = Self { session: KeySession { session, key }, point, attributes };
        if pair.is_whole()? {
            Ok(pair)
        } else {
            Err(TokenError::Halves { token: token.label.clone(), key: label.to_owned() })
        }
    }

    fn is_whole(&self) -> Result<bool, TokenError> {
        // A text that can be no certificate, nor anything else that we would sign.
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).expect("the system's random numbers do not fail once it has booted");
        let challenge = [b"factory-signerd: is this one key pair? ".as_slice(), &nonce].concat();
        let signature = self.sign_digest(Sha256::digest(&challenge).into())?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        Ok(public.verify(&challenge, &signature).is_ok())
    }

    /// The public key (SEC 1, uncompressed).
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// What the token says of the private key.
    pub fn attributes(&self) -> &KeyAttributes {
        &self.attributes
    }
}

impl SignDigest for ExistingKey {
    fn sign_digest(&self, digest: [u8; 32]) -> Result<Vec<u8>, TokenError> {
        self.session.sign_digest(digest)
    }
}

/// What the token says of the private key: the attributes that it answered with, in PKCS#11's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttributes(Vec<(&'static str, bool)>);

impl NewKey {
    /// Makes a P-256 key pair that can only sign and cannot leave the token. Refuses a label in use.
    pub fn generate(module: &Module, token: &Token, pin: &Pin, label: &str) -> Result<Self, TokenError> {
        let session = module.context().open_rw_session(token.slot).map_err(failed("open a session"))?;
        log_in(&session, token, pin)?;
        let same =
            session.find_objects(&[Attribute::Label(label.into())]).map_err(failed("list its keys"))?;
        if !same.is_empty() {
            return Err(TokenError::KeyExists { token: token.label.clone(), key: label.to_owned() });
        }

        let mut id = [0; 16];
        rand::fill(&mut id).expect("the system's random numbers do not fail once it has booted");
        let named = [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(id.into())];
        let public = [Attribute::Private(false), Attribute::Verify(true), Attribute::EcParams(P256.into())];
        let private = [
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ];
        let (public, key) = session
            .generate_key_pair(
                &Mechanism::EccKeyPairGen,
                &[&named[..], &public].concat(),
                &[&named[..], &private].concat(),
            )
            .map_err(failed("make a P-256 key pair"))?;

        let session = KeySession { session, key };
        let mut new =
            Self { session, public, point: Vec::new(), attributes: KeyAttributes(Vec::new()), kept: false };
        new.point = read_point(&new.session.session, public)?;
        new.attributes = KeyAttributes::read(&new.session.session, key)?;
        if !new.attributes.are_safe() {
            return Err(TokenError::UnsafeKey { attributes: new.attributes.to_string() });
        }
        Ok(new)
    }

    /// The public key (SEC 1, uncompressed).
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// What the token says of the private key.
    pub fn attributes(&self) -> &KeyAttributes {
        &self.attributes
    }

    /// Leaves the key pair in the token.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl SignDigest for NewKey {
    fn sign_digest(&self, digest: [u8; 32]) -> Result<Vec<u8>, TokenError> {
        self.session.sign_digest(digest)
    }
}

impl Drop for NewKey {
    fn drop(&mut self) {
        if !self.kept {
            for object in [self.session.key, self.public] {
                // The failure that brought us here is the one to report.
                let _ = self.session.session.destroy_object(object);
            }
        }
    }
}

impl KeyAttributes {
    fn read(session: &Session, key: ObjectHandle) -> Result<Self, TokenError> {
        let wanted = [
            AttributeType::Sensitive,
            AttributeType::AlwaysSensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Local,
            AttributeType::Sign,
            AttributeType::Decrypt,
            AttributeType::Unwrap,
            AttributeType::Derive,
        ];
        let found = session.get_attributes(key, &wanted).map_err(failed("show the key's attributes"))?;
        let named = |attribute| match attribute {
            Attribute::Sensitive(value) => Some(("Sensitive", value)),
            Attribute::AlwaysSensitive(value) => Some(("AlwaysSensitive", value)),
            Attribute::Extractable(value) => Some(("Extractable", value)),
            Attribute::NeverExtractable(value) => Some(("NeverExtractable", value)),
            Attribute::Local(value) => Some(("Local", value)),
            Attribute::Sign(value) => Some(("Sign", value)),
            Attribute::Decrypt(value) => Some(("Decrypt", value)),
            Attribute::Unwrap(value) => Some(("Unwrap", value)),
            Attribute::Derive(value) => Some(("Derive", value)),
            _ => None,
        };
        Ok(Self(found.into_iter().filter_map(named).collect()))
    }

    /// Each with its value, in the order of reading.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.0.iter().copied()
    }

    /// One of them; `None` when the token did not say.
    pub fn get(&self, name: &str) -> Option<bool> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn are_safe(&self) -> bool {
        [("Sensitive", true), ("Extractable", false), ("Sign", true)]
            .into_iter()
            .all(|(name, value)| self.get(name) == Some(value))
    }
}

impl fmt::Display for KeyAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.iter().map(|(name, value)| format!("{name}({value})")).collect();
        f.write_str(&words.join(" "))
    }
}

fn read_point(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, TokenError> {
    let attributes =
        session.get_attributes(public, &[AttributeType::EcPoint]).map_err(failed("show the public key"))?;
    let Some(Attribute::EcPoint(point)) = attributes.into_iter().next() else {
        return Err(TokenError::Answer { what: "a P-256 point", length: 0 });
    };
    // A DER OCTET STRING (PKCS#11 v2.40, section 2.3.3); some tokens give the bare point.
    match (point.strip_prefix(&POINT_HEADER), point.len()) {
        (Some(bare), _) if bare.len() == POINT_LENGTH => Ok(bare.to_vec()),
        (_, POINT_LENGTH) => Ok(point),
        (_, length) => Err(TokenError::Answer { what: "a P-256 point", length }),
    }
}
