//! The provider's secret: from the builder, from `FAREBOX_SECRET`, or kept beside the ledger.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use farebox_ledger::store::sync_folder;
use farebox_processor::Mode;
use farebox_protocol::{CredentialKey, IdentityKey};

/// The environment variable that holds the secret.
const VARIABLE: &str = "FAREBOX_SECRET";
/// A shorter secret is refused.
const BYTES_MIN: usize = 32;

/// Why there is no secret; the operator acts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Too short to be random enough.
    #[error("{VARIABLE} must be at least {BYTES_MIN} bytes: try `openssl rand -hex 32`")]
    TooShort,
    /// With live money, nothing is made up.
    #[error("in live mode {VARIABLE} must be set: it is the key of every payer's account")]
    Missing,
    /// The ledger is no file that a secret could be kept beside.
    #[error(
        "{VARIABLE} must be set: every process that shares this ledger needs the same one; make it with `openssl rand -hex 32`"
    )]
    NotShared,
    /// The file beside the ledger cannot be read or written.
    #[error("the secret beside the ledger, {path}, cannot be used: {error}")]
    File {
        /// The file.
        path: String,
        /// What the operating system says.
        error: io::Error,
    },
}

/// The keys that derive from the secret.
pub(crate) struct Keys {
    pub(crate) identity: IdentityKey,
    pub(crate) credentials: CredentialKey,
    /// Tells two secrets apart without giving one away.
    pub(crate) check: String,
}

impl Keys {
    /// The identity key is the secret itself, as in the TypeScript server, so that its payers keep
    /// their ids. Whatever else is derived cannot meet a card's fingerprint, which has no spaces.
    pub(crate) fn new(secret: &[u8]) -> Keys {
        let identity = IdentityKey::new(secret);
        let credentials = CredentialKey::new(identity.payer("farebox credential key").as_bytes());
        let check = identity.payer("farebox ledger check").to_string();
        Keys { identity, credentials, check }
    }
}

/// The secret to use with the ledger at `url`; `None`: a store of somebody else's.
pub(crate) fn find(
    given: Option<Vec<u8>>,
    url: Option<&str>,
    mode: Mode,
) -> Result<Vec<u8>, SecretError> {
    let from_environment = || std::env::var(VARIABLE).ok().map(String::into_bytes);
    if let Some(secret) = given.or_else(from_environment) {
        return if secret.len() < BYTES_MIN { Err(SecretError::TooShort) } else { Ok(secret) };
    }
    if mode == Mode::Live {
        return Err(SecretError::Missing);
    }
    match url.map(|url| url.split_once(':').unwrap_or((url, ""))) {
        Some(("embedded", path)) => {
            let path = PathBuf::from(format!("{path}.secret"));
            read_or_make(&path)
                .map_err(|error| SecretError::File { path: path.display().to_string(), error })
        }
        Some((scheme, _)) if !scheme.starts_with("redis") => random(), // gone with the ledger
        _ => Err(SecretError::NotShared),
    }
}

/// The secret at `path`; made whole, or not at all, if there is none. Losing it would lose every
/// payer, so it is on the disk before a ledger is made with it.
fn read_or_make(path: &Path) -> io::Result<Vec<u8>> {
    if !path.try_exists()? {
        let new = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
        write_new(&new)?;
        // Unlike a rename, a link never takes the place of a secret that another process made.
        let linked = fs::hard_link(&new, path);
        fs::remove_file(&new)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_folder(path)?,
        }
    }
    let secret = fs::read(path)?;
    match secret.len() < BYTES_MIN {
        true => Err(io::Error::other("it is too short; remove it if the ledger is new")),
        false => Ok(secret),
    }
}

fn write_new(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(&random().map_err(io::Error::other)?)?;
    file.sync_all()
}

/// 32 random bytes, as text.
fn random() -> Result<Vec<u8>, SecretError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| SecretError::File { path: "(random)".to_owned(), error: error.into() })?;
    Ok(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect())
}
