//! What the tests log, at every level, in files, and a search for secrets in them.
//!
//! `scripts/canary` names a folder in `FAREBOX_TRACE` and runs the suites; whatever starts a server
//! or a client in them calls [`watch`]. Then the program `canary` reads the folder:
//!
//! ```
//! use farebox_canary::{Kind, hits};
//!
//! let found = hits(b"DEBUG sent card[number]=4242-4242-4242-4242&card[cvc]=987");
//! assert!(found.contains(&Kind::Card) && found.contains(&Kind::Cvc));
//! assert!(hits(b"DEBUG paid by card, last4=4242").is_empty());
//! ```

mod decode;
mod kind;
mod trace;

use std::collections::BTreeSet;

pub use kind::Kind;
pub use trace::{keep, stderr, watch};

/// What is encoded within an encoding within an encoding is still found.
const DEPTH: u8 = 3;

/// The secrets in a line, as they are or encoded: percent, base64 at any offset, hexadecimal, or a
/// list of bytes.
pub fn hits(line: &[u8]) -> BTreeSet<Kind> {
    let mut found = BTreeSet::new();
    search(line, DEPTH, &mut found);
    found
}

fn search(text: &[u8], depth: u8, found: &mut BTreeSet<Kind>) {
    found.extend(Kind::all_in(text));
    if depth > 0 {
        decode::within(text, &mut |decoded| search(decoded, depth - 1, found));
    }
}

#[cfg(test)]
mod tests;
