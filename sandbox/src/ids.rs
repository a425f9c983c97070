//! Ids and secrets, drawn from a seed.

use std::collections::HashMap;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Every kind of id has its own sequence, so that the ids of PaymentIntents do not depend on how
/// many requests were refused before.
pub(crate) struct Ids {
    seed: u64,
    drawn: HashMap<&'static str, u64>,
}

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: HashMap::new() }
    }

    /// The next id of a kind: `pi` gives `pi_` and 24 letters and digits.
    pub(crate) fn next(&mut self, prefix: &'static str) -> String {
        format!("{prefix}_{}", self.draw(prefix))
    }

    /// A client secret is the object's id and a random tail.
    pub(crate) fn client_secret(&mut self, id: &str) -> String {
        format!("{id}_secret_{}", self.draw("secret"))
    }

    fn draw(&mut self, prefix: &'static str) -> String {
        let drawn = self.drawn.entry(prefix).or_default();
        *drawn += 1;
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(drawn.to_be_bytes())
            .chain_update(prefix)
            .finalize();
        letters_and_digits(&hash, 24)
    }
}

/// The same card number has the same fingerprint in every sandbox, as it has in one Stripe
/// account: the seed plays no part. The key is public; a test card's number is no secret.
pub(crate) fn fingerprint(card_number: &str) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(b"farebox sandbox card fingerprints")
        .expect("HMAC takes keys of any length");
    mac.update(card_number.as_bytes());
    letters_and_digits(&mac.finalize().into_bytes(), 16)
}

/// The slight preference for the first letters of the alphabet (256 is no multiple of 62) costs
/// less than one bit of an id.
fn letters_and_digits(bytes: &[u8], length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    bytes.iter().take(length).map(|byte| char::from(ALPHABET[usize::from(*byte) % 62])).collect()
}

#[cfg(test)]
mod tests {
    use super::{Ids, fingerprint};

    #[test]
    fn equal_seeds_draw_equal_ids_and_others_do_not() {
        let (mut a, mut b, mut c) = (Ids::new(1), Ids::new(1), Ids::new(2));
        b.next("req");
        assert_eq!(a.next("pi"), b.next("pi"));
        assert_ne!(a.next("pi"), c.next("pi"));
    }

    #[test]
    fn a_fingerprint_is_sixteen_letters_and_digits() {
        let fingerprint = fingerprint("4242424242424242");
        assert_eq!(fingerprint.len(), 16);
        assert!(fingerprint.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
