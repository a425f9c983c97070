//! Credentials: what a client sends as `clientId` to spend from a payer's accounts.
//!
//! A credential is `<payer id>.<generation>.<secret>`, and its secret is an HMAC of the other
//! two. Any process that has the key can check it without a store and give it again after an
//! answer was lost. Raising the payer's generation revokes every credential issued before.
//!
//! ```
//! use farebox_protocol::{CredentialKey, IdentityKey};
//!
//! let payer = IdentityKey::new(&[7; 32]).payer("fingerprint");
//! let key = CredentialKey::new(&[9; 32]);
//! let client_id = key.issue(payer, 1);
//! assert_eq!(key.check(&client_id).map(|c| (c.payer, c.generation)), Some((payer, 1)));
//! assert!(CredentialKey::new(&[8; 32]).check(&client_id).is_none());
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

    /// The credential of `payer` at `generation`; the same each time.
    #[expect(clippy::expect_used, reason = "119 characters of the id alphabet at most")]
    pub fn issue(&self, payer: PayerId, generation: u32) -> ClientId {
        let secret = URL_SAFE_NO_PAD.encode(self.mac(payer, generation).finalize().into_bytes());
        format!("{payer}.{generation}.{secret}").parse().expect("a credential is an identifier")
    }

    /// The credential, if it was issued under this key. The comparison takes constant time.
    pub fn check(&self, client_id: &ClientId) -> Option<Credential> {
        let mut parts = client_id.as_str().splitn(3, '.');
        let payer = parts.next()?.parse().ok()?;
        let number = parts.next()?;
        let generation = number.parse().ok()?;
        let secret = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        self.mac(payer, generation).verify_slice(&secret).ok()?;
        // One spelling per credential: `+1` and `01` were never issued.
        (generation.to_string() == number).then_some(Credential { payer, generation })
    }

    fn mac(&self, payer: PayerId, generation: u32) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(payer.as_bytes());
        mac.update(&generation.to_be_bytes());
        mac
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialKey(..)")
    }
}
