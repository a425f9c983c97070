//! Credentials: what a client sends as `clientId` to spend from a payer's accounts.
//!
//! The payer's own credential is `<payer id>.<generation>.<secret>`. A further one, such as one per
//! agent, is `<payer id>.<generation>-<number>.<secret>`. The secret is an HMAC of what stands
//! before it, not random: any process that has the key can check a credential without a store and
//! give it again after an answer was lost, and no store holds anything that spends. Raising the
//! payer's generation revokes every credential issued before; the ledger knows which numbers stand.
//!
//! ```
//! use farebox_protocol::{CredentialKey, IdentityKey};
//!
//! let payer = IdentityKey::new(&[7; 32]).payer("fingerprint");
//! let key = CredentialKey::new(&[9; 32]);
//! let client_id = key.issue(payer, 1);
//! assert_eq!(key.check(&client_id).map(|c| (c.payer, c.generation)), Some((payer, 1)));
//! assert!(CredentialKey::new(&[8; 32]).check(&client_id).is_none());
//!
//! let agents = key.issue_further(payer, 1, 7);
//! assert_eq!(key.check(&agents).and_then(|credential| credential.number), Some(7));
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::id::{ClientId, PayerId};

/// A credential whose secret was checked: it names its payer, at the generation it was issued
/// for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Whose accounts it spends from.
    pub payer: PayerId,
    /// The payer's generation when it was issued. The ledger knows whether it was revoked since.
    pub generation: u32,
    /// Its number, if it is a further one. The ledger knows whether it was issued, and revoked.
    pub number: Option<u16>,
}

/// The key under which credentials are issued. Changing it revokes all of them.
#[derive(Clone)]
pub struct CredentialKey(Hmac<Sha256>);

impl CredentialKey {
    /// A key of any length; at least 32 random bytes are wanted.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    pub fn new(key: &[u8]) -> CredentialKey {
        CredentialKey(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The own credential of `payer` at `generation`; the same each time.
    pub fn issue(&self, payer: PayerId, generation: u32) -> ClientId {
        self.write(Credential { payer, generation, number: None })
    }

    /// A further credential of `payer` at `generation`; the same each time.
    pub fn issue_further(&self, payer: PayerId, generation: u32, number: u16) -> ClientId {
        self.write(Credential { payer, generation, number: Some(number) })
    }

    /// The credential, if it was issued under this key. The comparison takes constant time.
    pub fn check(&self, client_id: &ClientId) -> Option<Credential> {
        let mut parts = client_id.as_str().splitn(3, '.');
        let payer = parts.next()?.parse().ok()?;
        let issue = parts.next()?;
        let (generation, number) = match issue.split_once('-') {
            Some((generation, number)) => (generation, Some(number.parse().ok()?)),
            None => (issue, None),
        };
        let credential = Credential { payer, generation: generation.parse().ok()?, number };
        let secret = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        self.mac(credential).verify_slice(&secret).ok()?;
        // One spelling per credential: `+1` and `01` were never issued.
        (credential.issue() == issue).then_some(credential)
    }

    #[expect(clippy::expect_used, reason = "125 characters of the id alphabet at most")]
    fn write(&self, credential: Credential) -> ClientId {
        let secret = URL_SAFE_NO_PAD.encode(self.mac(credential).finalize().into_bytes());
        let text = format!("{}.{}.{secret}", credential.payer, credential.issue());
        text.parse().expect("a credential is an identifier")
    }

    /// 36 bytes for a payer's own credential and 38 for a further one, so that none is another's.
    fn mac(&self, credential: Credential) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(credential.payer.as_bytes());
        mac.update(&credential.generation.to_be_bytes());
        if let Some(number) = credential.number {
            mac.update(&number.to_be_bytes());
        }
        mac
    }
}

impl Credential {
    /// What stands between the payer and the secret.
    fn issue(self) -> String {
        match self.number {
            Some(number) => format!("{}-{number}", self.generation),
            None => self.generation.to_string(),
        }
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialKey(..)")
    }
}
