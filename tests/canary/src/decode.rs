//! What may be hidden in a text by an encoding.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Shorter ones hold no secret that could be told from chance.
const ENCODED_MIN: usize = 16;
/// Chance decodes to readable text of this length about once in 100,000 tries.
const READABLE_MIN: usize = 12;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Hands every readable text that is encoded in `text` to `look`.
pub(crate) fn within(text: &[u8], look: &mut dyn FnMut(&[u8])) {
    if text.contains(&b'%') {
        let decoded = percent(text);
        if decoded != text {
            look(&decoded);
        }
    }
    for run in runs(text, is_base64) {
        base64(run, look);
    }
    for run in runs(text, |byte| byte.is_ascii_hexdigit()) {
        for start in 0..2 {
            readable(&hexadecimal(&run[start..]), look);
        }
    }
    for run in runs(text, |byte| byte.is_ascii_digit() || b", \t".contains(&byte)) {
        readable(&numbers(run), look);
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

fn runs(text: &[u8], belongs: impl Fn(u8) -> bool) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| !belongs(*byte)).filter(|run| run.len() >= ENCODED_MIN)
}

/// Both alphabets, and all offsets: other text may stand directly before it.
fn base64(run: &[u8], look: &mut dyn FnMut(&[u8])) {
    let standard: Vec<u8> = run
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    for start in 0..4 {
        let part = &standard[start..];
        let whole = part.len() - usize::from(part.len() % 4 == 1);
        if let Ok(decoded) = BASE64.decode(&part[..whole]) {
            readable(&decoded, look);
        }
    }
}

fn hexadecimal(run: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    run.chunks_exact(2).filter_map(|two| Some(digit(two[0])? << 4 | digit(two[1])?)).collect()
}

/// A list of bytes, as Debug prints it.
fn numbers(run: &[u8]) -> Vec<u8> {
    let words = run.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    words
        .map(|word| str::from_utf8(word).ok()?.parse().ok())
        .map(Option::unwrap_or_default)
        .collect()
}

fn percent(text: &[u8]) -> Vec<u8> {
    let digit =
        |at: usize| char::from(*text.get(at)?).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if let (b'%', Some(high), Some(low)) = (byte, digit(at + 1), digit(at + 2)) {
            decoded.push(high << 4 | low);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    decoded
}

fn readable(decoded: &[u8], look: &mut dyn FnMut(&[u8])) {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    for part in decoded.split(|byte| !is_text(byte)).filter(|part| part.len() >= READABLE_MIN) {
        look(part);
    }
}
