//! Stripe's parameters: `application/x-www-form-urlencoded` with nested names such as
//! `card[number]=...`, `expand[]=...` or `payment_method_types[0]=...`.
//!
//! Reading is strict, because a stand-in that swallows a misspelt parameter hides a bug until it
//! meets the real thing. An endpoint takes the parameters it knows; what is left is unknown.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{ApiError, ApiResult};

/// Far above what any request here needs, far below what could hurt.
const MAX_PAIRS: usize = 1_000;
const MAX_DEPTH: usize = 6;
const MAX_TEXT: usize = 5_000;

const MAX_METADATA_KEYS: usize = 50;
const MAX_METADATA_KEY: usize = 40;
const MAX_METADATA_VALUE: usize = 500;

/// Text, or parameters inside of it. No Debug: it may be a card number.
enum Node {
    Text(String),
    Branch(Vec<(String, Node)>),
}

/// The parameters of one request, or of one object inside of it.
pub(crate) struct Params {
    /// The name of this object, empty for the request itself.
    name: String,
    entries: Vec<(String, Node)>,
}

/// The pairs of a request as they were sent.
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads query string and body. A request has few parameters: all are kept in order.
    pub(crate) fn decode(query: &str, body: &[u8]) -> ApiResult<Self> {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .chain(form_urlencoded::parse(body))
            .take(MAX_PAIRS + 1)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        if pairs.len() > MAX_PAIRS {
            return Err(ApiError::invalid("Invalid request: too many parameters."));
        }
        Ok(Self(pairs))
    }

    /// Reads a JSON object of texts and integers, as the sandbox's own endpoints take it.
    pub(crate) fn from_json(body: &[u8]) -> ApiResult<Self> {
        if body.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let object: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|_| ApiError::invalid("The body of this request must be a JSON object."))?;
        let pair = |(name, value): (String, Value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Number(number) => Ok((name, number.to_string())),
            _ => Err(ApiError::invalid("Invalid value: neither text nor integer").param(name)),
        };
        Ok(Self(object.into_iter().map(pair).collect::<ApiResult<_>>()?))
    }

    /// What an idempotency key is bound to. The order of parameters does not count, the order of
    /// values under one name (an array) does.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut pairs: Vec<_> = self.0.iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let mut hash = Sha256::new();
        for text in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }

    /// Resolves the brackets in the names.
    pub(crate) fn into_params(self) -> ApiResult<Params> {
        let mut entries = Vec::new();
        for (name, value) in self.0 {
            let path = split(&name).ok_or_else(|| {
                ApiError::invalid(format!("Invalid parameter name: {name}")).param(name.as_str())
            })?;
            insert(&mut entries, &path, value).ok_or_else(|| {
                ApiError::invalid(format!(
                    "Invalid request: parameter {name} was given twice, or \
                     both as a value and as an object."
                ))
                .param(name.as_str())
            })?;
        }
        Ok(Params { name: String::new(), entries })
    }
}

/// `a[b][]` becomes `a`, `b`, and an empty name.
fn split(name: &str) -> Option<Vec<&str>> {
    let Some((head, rest)) = name.split_once('[') else {
        return (!name.is_empty() && !name.contains(']')).then(|| vec![name]);
    };
    let inner = rest.strip_suffix(']')?;
    let path: Vec<&str> = std::iter::once(head).chain(inner.split("][")).collect();
    let sound = |part: &&str| !part.contains(['[', ']']);
    (!head.is_empty() && path.len() <= MAX_DEPTH && path.iter().all(sound)).then_some(path)
}

fn insert(entries: &mut Vec<(String, Node)>, path: &[&str], value: String) -> Option<()> {
    let (head, rest) = path.split_first()?;
    // `a[]` appends.
    let head = if head.is_empty() { entries.len().to_string() } else { (*head).to_owned() };
    let found = entries.iter().position(|(name, _)| *name == head);
    match (found, rest.is_empty()) {
        (Some(_), true) => None,
        (None, true) => {
            entries.push((head, Node::Text(value)));
            Some(())
        }
        (Some(at), false) => match &mut entries[at].1 {
            Node::Branch(inner) => insert(inner, rest, value),
            Node::Text(_) => None,
        },
        (None, false) => {
            let mut inner = Vec::new();
            insert(&mut inner, rest, value)?;
            entries.push((head, Node::Branch(inner)));
            Some(())
        }
    }
}

impl Params {
    /// The name of a parameter as the caller wrote it, for errors.
    pub(crate) fn full_name(&self, name: &str) -> String {
        if self.name.is_empty() { name.to_owned() } else { format!("{}[{name}]", self.name) }
    }

    fn take(&mut self, name: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(known, _)| known == name)?;
        Some(self.entries.remove(at).1)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(known, _)| known == name)
    }

    /// True for `a=1`, false for `a[b]=1` and for nothing.
    pub(crate) fn is_text(&self, name: &str) -> bool {
        let is = |(known, node): &(String, Node)| known == name && matches!(node, Node::Text(_));
        self.entries.iter().any(is)
    }

    /// A text. Empty is an error: Stripe reads it as "unset", and nothing here can be unset.
    pub(crate) fn text(&mut self, name: &str) -> ApiResult<Option<String>> {
        let full = self.full_name(name);
        match self.take(name) {
            None => Ok(None),
            Some(Node::Branch(_)) => Err(ApiError::invalid("Invalid string").param(full)),
            Some(Node::Text(text)) if text.is_empty() => {
                let message = format!(
                    "You passed an empty string for '{full}'. We assume empty values are an \
                         attempt to unset a parameter; however '{full}' cannot be unset. You \
                         should remove '{full}' from your request or supply a non-empty value."
                );
                Err(ApiError::invalid(message).code("parameter_invalid_empty").param(full))
            }
            Some(Node::Text(text)) if text.chars().count() > MAX_TEXT => {
                let message = format!("Invalid string: must be at most {MAX_TEXT} characters");
                Err(ApiError::invalid(message).param(full))
            }
            Some(Node::Text(text)) => Ok(Some(text)),
        }
    }

    pub(crate) fn required_text(&mut self, name: &str) -> ApiResult<String> {
        let missing = missing(&self.full_name(name));
        self.text(name)?.ok_or(missing)
    }

    /// A decimal integer without sign tricks: `+5`, `5.0` and `1e3` are refused.
    pub(crate) fn integer(&mut self, name: &str) -> ApiResult<Option<i64>> {
        let full = self.full_name(name);
        let Some(text) = self.text(name)? else { return Ok(None) };
        let plain = !text.starts_with('+');
        let number = text.parse().ok().filter(|_| plain).ok_or_else(|| {
            ApiError::invalid(format!("Invalid integer: {text}"))
                .code("parameter_invalid_integer")
                .param(full)
        })?;
        Ok(Some(number))
    }

    pub(crate) fn required_integer(&mut self, name: &str) -> ApiResult<i64> {
        let missing = missing(&self.full_name(name));
        self.integer(name)?.ok_or(missing)
    }

    /// An amount of money: at least 1 of the minor unit.
    pub(crate) fn amount(&mut self, name: &str) -> ApiResult<Option<i64>> {
        let full = self.full_name(name);
        let amount = self.integer(name)?;
        if amount.is_some_and(|amount| amount < 1) {
            let message = "This value must be greater than or equal to 1.";
            return Err(ApiError::invalid(message).code("parameter_invalid_integer").param(full));
        }
        Ok(amount)
    }

    pub(crate) fn boolean(&mut self, name: &str) -> ApiResult<Option<bool>> {
        let full = self.full_name(name);
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(text) => Err(ApiError::invalid(format!("Invalid boolean: {text}")).param(full)),
        }
    }

    /// One of a fixed set of words.
    pub(crate) fn choice(
        &mut self,
        name: &str,
        words: &[&'static str],
    ) -> ApiResult<Option<&'static str>> {
        let full = self.full_name(name);
        let Some(text) = self.text(name)? else { return Ok(None) };
        match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Some(word)),
            None => {
                let message = format!("Invalid {full}: must be one of {}", words.join(", "));
                Err(ApiError::invalid(message).param(full))
            }
        }
    }

    /// An object; whatever `read` leaves of it is unknown.
    pub(crate) fn object<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Params) -> ApiResult<T>,
    ) -> ApiResult<Option<T>> {
        let full = self.full_name(name);
        match self.take(name) {
            None => Ok(None),
            Some(Node::Text(_)) => Err(ApiError::invalid("Invalid object").param(full)),
            Some(Node::Branch(entries)) => {
                let mut inner = Params { name: full, entries };
                let value = read(&mut inner)?;
                inner.finish()?;
                Ok(Some(value))
            }
        }
    }

    /// Texts in the order of their indices.
    pub(crate) fn texts(&mut self, name: &str) -> ApiResult<Vec<String>> {
        let full = self.full_name(name);
        let invalid = || ApiError::invalid("Invalid array").param(full.as_str());
        let entries = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Node::Text(_)) => return Err(invalid()),
            Some(Node::Branch(entries)) => entries,
        };
        let mut texts = Vec::new();
        for (index, node) in entries {
            match (index.parse::<usize>(), node) {
                (Ok(index), Node::Text(text)) if !text.is_empty() => texts.push((index, text)),
                _ => return Err(invalid()),
            }
        }
        texts.sort();
        Ok(texts.into_iter().map(|(_, text)| text).collect())
    }

    /// The caller's own keys and values. An empty value unsets its key, which at creation means
    /// that it is not there; `metadata=` unsets all of them.
    pub(crate) fn metadata(&mut self) -> ApiResult<BTreeMap<String, String>> {
        let full = self.full_name("metadata");
        let invalid = |message: String| ApiError::invalid(message).param(full.as_str());
        let entries = match self.take("metadata") {
            None => return Ok(BTreeMap::new()),
            Some(Node::Text(text)) if text.is_empty() => return Ok(BTreeMap::new()),
            Some(Node::Text(_)) => return Err(invalid("Invalid object".to_owned())),
            Some(Node::Branch(entries)) => entries,
        };
        if entries.len() > MAX_METADATA_KEYS {
            return Err(invalid(format!("Metadata can have at most {MAX_METADATA_KEYS} keys")));
        }
        let mut metadata = BTreeMap::new();
        for (key, node) in entries {
            let Node::Text(value) = node else {
                return Err(invalid(format!(
                    "Metadata values must be strings, but for key '{key}' you passed in an object"
                )));
            };
            if key.chars().count() > MAX_METADATA_KEY {
                return Err(invalid(format!(
                    "Metadata keys can be at most {MAX_METADATA_KEY} characters, but you passed \
                         in '{key}'"
                )));
            }
            if value.chars().count() > MAX_METADATA_VALUE {
                return Err(invalid(format!(
                    "Metadata values can be at most {MAX_METADATA_VALUE} characters, but you \
                         passed in a longer one for key '{key}'"
                )));
            }
            if !value.is_empty() {
                metadata.insert(key, value);
            }
        }
        Ok(metadata)
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> ApiResult<()> {
        let unknown: Vec<String> =
            self.entries.iter().map(|(name, _)| self.full_name(name)).collect();
        let Some(first) = unknown.first() else { return Ok(()) };
        let plural = if unknown.len() == 1 { "" } else { "s" };
        let message = format!("Received unknown parameter{plural}: {}", unknown.join(", "));
        Err(ApiError::invalid(message).code("parameter_unknown").param(first.as_str()))
    }
}

/// The error for a parameter that must be there.
pub(crate) fn missing(full_name: &str) -> ApiError {
    ApiError::invalid(format!("Missing required param: {full_name}."))
        .code("parameter_missing")
        .param(full_name)
}

#[cfg(test)]
mod tests {
    use super::{Form, Params};

    fn params(text: &str) -> Option<Params> {
        Form::decode("", text.as_bytes()).ok()?.into_params().ok()
    }

    #[test]
    fn arrays_are_read_with_and_without_indices() {
        for text in ["a[]=x&a[]=y", "a[1]=y&a[0]=x", "a%5B0%5D=x&a%5B1%5D=y"] {
            let mut params = params(text).unwrap();
            assert_eq!(params.texts("a").ok().unwrap(), ["x", "y"]);
            assert!(params.finish().is_ok());
        }
    }

    #[test]
    fn objects_nest_and_report_their_full_names() {
        let mut params = params("a[b][c]=1&a[b][d]=2").unwrap();
        let read = params.object("a", |a| a.object("b", |b| b.text("c")));
        let error = read.err().unwrap().object();
        assert_eq!(error["param"], "a[b][d]");
    }

    #[test]
    fn malformed_names_and_repeated_names_are_refused() {
        for text in ["a[b=1", "a]=1", "[a]=1", "=1", "a[b]c=1", "a[[b]]=1", "a=1&a=2", "a=1&a[b]=2"]
        {
            assert!(params(text).is_none(), "{text}");
        }
        assert!(params("a[1][2][3][4][5][6][7]=1").is_none());
    }

    #[test]
    fn a_digest_ignores_the_order_of_names_but_not_of_array_values() {
        let digest = |text: &str| Form::decode("", text.as_bytes()).ok().unwrap().digest();
        assert_eq!(digest("a=1&b=2"), digest("b=2&a=1"));
        assert_ne!(digest("a[]=1&a[]=2"), digest("a[]=2&a[]=1"));
        assert_ne!(digest("a=1&b=2"), digest("a=1b&=2"));
    }

    #[test]
    fn integers_have_one_spelling() {
        for text in ["1.0", "1e3", "+5", " 5", "0x5", "99999999999999999999"] {
            assert!(
                params(&format!("a={}", text.replace('+', "%2B"))).unwrap().integer("a").is_err()
            );
        }
        assert_eq!(params("a=-5").unwrap().integer("a").ok().unwrap(), Some(-5));
    }
}
