use farebox_protocol::{ClientId, Credential, CredentialKey, IdentityKey, PayerId};
use serde::Deserialize;

use crate::vectors::{Named, bytes, cases};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PayerCase {
    name: String,
    identity_key_hex: Option<String>,
    fingerprint: Option<String>,
    payer: String,
    #[serde(default)]
    refused: bool,
}

impl Named for PayerCase {
    fn name(&self) -> &str {
        &self.name
    }
}

#[test]
fn payer_id_vectors_hold() {
    for case in cases::<PayerCase>("payer_id", 18) {
        let name = &case.name;
        let read = case.payer.parse::<PayerId>();
        if case.refused {
            assert!(read.is_err(), "{name}");
            continue;
        }
        let (key, fingerprint) = (case.identity_key_hex.unwrap(), case.fingerprint.unwrap());
        let payer = IdentityKey::new(&bytes(&key)).payer(&fingerprint);
        assert_eq!(payer.to_string(), case.payer, "{name}");
        assert_eq!(payer.as_bytes().as_slice(), bytes(&case.payer), "{name}");
        assert_eq!(read, Ok(payer), "{name}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CredentialCase {
    name: String,
    credential_key_hex: String,
    payer: Option<PayerId>,
    generation: Option<u32>,
    number: Option<u16>,
    credential: String,
    #[serde(default)]
    refused: bool,
}

impl Named for CredentialCase {
    fn name(&self) -> &str {
        &self.name
    }
}

#[test]
fn credential_vectors_hold() {
    let (mut issued, mut refused) = (0, 0);
    for case in cases::<CredentialCase>("credential", 52) {
        let name = &case.name;
        let key = CredentialKey::new(&bytes(&case.credential_key_hex));
        let client_id = case.credential.parse::<ClientId>();
        let checked = client_id.as_ref().ok().and_then(|id| key.check(id));
        if case.refused {
            refused += 1;
            assert_eq!(checked, None, "{name}");
            let malformed = name.starts_with("not an identifier");
            assert_eq!(client_id.is_err(), malformed, "{name}");
            continue;
        }
        issued += 1;
        let (payer, generation) = (case.payer.unwrap(), case.generation.unwrap());
        let written = match case.number {
            Some(number) => key.issue_further(payer, generation, number),
            None => key.issue(payer, generation),
        };
        assert_eq!(written.as_str(), case.credential, "{name}");
        let credential = Credential { payer, generation, number: case.number };
        assert_eq!(checked, Some(credential), "{name}");
    }
    assert!(issued >= 12 && refused >= 40, "{issued} issued, {refused} refused");
}

#[test]
fn secrets_do_not_show() {
    let payer = IdentityKey::new(&[1; 32]).payer("fingerprint");
    let key = CredentialKey::new(&[2; 32]);
    let client_id = key.issue(payer, 1);
    assert_eq!(format!("{key:?} {client_id:?}"), "CredentialKey(..) ClientId(..)");
    assert_eq!(format!("{:?}", IdentityKey::new(&[1; 32])), "IdentityKey(..)");
}
