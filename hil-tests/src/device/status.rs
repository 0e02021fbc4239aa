//! How a device says that something went wrong: a number, and its own words with the item's name.
//! Numbers and words are those of the real program (FCC protocol, section 5).

/// The return statuses that this device gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    Success = 0,
    Unspecified = 1,
    BadParameter = 3,
    InternalStorage = 4,
    RootOfTrustExists = 7,
    EntropyExists = 8,
    FactoryDisabled = 9,
    CertificateInvalid = 10,
    AttributeMissing = 11,
    CertificateExpired = 13,
    NameWrong = 14,
    KeyStoreStorage = 16,
    ItemExists = 17,
    KeyStoreCrypto = 18,
    Malformed = 20,
    UnknownGroup = 23,
    WrongScheme = 24,
    ItemMissing = 25,
    ItemEmpty = 26,
    ItemSize = 27,
    WrongUri = 28,
    FirstToClaimNotAllowed = 29,
    BootstrapMode = 30,
    WrongUtcOffset = 33,
    KeyMismatch = 34,
    SessionFlag = 35,
    TooManyRequests = 36,
    NotSupported = 37,
}

/// What ends the processing of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The number returned.
    pub status: Status,
    /// The info message returned.
    pub info: String,
}

impl Failure {
    /// A failure whose item the device does not name.
    pub fn general(status: Status) -> Self {
        Self::about(status, "General error", "")
    }

    /// A failure of one item.
    pub fn about(status: Status, reason: &str, item: &str) -> Self {
        Self { status, info: format!("{reason}:{item}") }
    }
}
