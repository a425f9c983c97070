//! A policy as its owner writes it: TOML or JSON. `spec/policy.md` has every field.
//!
//! ```
//! use farebox_policy::Policy;
//! use farebox_protocol::usd;
//!
//! let policy = Policy::from_toml(
//!     r#"
//!     allow = ["api.example.com"]
//!     per_request = "0.05 usd"
//!     rolling = [{ window = "6h", limit = "2.00 usd" }]
//!     "#,
//! )?;
//! assert_eq!(policy.limits().per_request, Some(usd!("0.05")));
//!
//! let error = Policy::from_toml("allow = []\nper_dya = \"5.00 usd\"").unwrap_err();
//! assert_eq!(error.line(), Some(2));
//! assert!(error.to_string().contains("did you mean `per_day`?"), "{error}");
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```

use std::fmt;

use farebox_protocol::Money;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::host::HostPattern;
use crate::limits::{Limits, OriginLimits, Rolling};
use crate::policy::{Hosts, Policy};

/// The longest text that is read.
const TEXT_MAX: usize = 256 * 1024;

/// Why a policy cannot be read. Whoever wrote it must correct it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    line: Option<usize>,
    message: String,
}

impl PolicyError {
    /// The line on which it stands, counted from 1, where that is known.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    fn new(line: Option<usize>, message: &str) -> PolicyError {
        let near = near(message).map(|name| format!("; did you mean `{name}`?"));
        PolicyError { line, message: format!("{message}{}", near.unwrap_or_default()) }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// Reads a policy from TOML.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] for whatever `spec/policy.md` does not name: a field, an amount or a host
    /// that cannot be read is never skipped.
    pub fn from_toml(text: &str) -> Result<Policy, PolicyError> {
        bounded(text)?;
        toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| {
                let before = text.as_bytes().iter().take(span.start);
                before.filter(|byte| **byte == b'\n').count() + 1
            });
            PolicyError::new(line, error.message())
        })
    }

    /// Reads a policy from JSON: the same fields.
    ///
    /// # Errors
    ///
    /// As [`Policy::from_toml`].
    pub fn from_json(text: &str) -> Result<Policy, PolicyError> {
        bounded(text)?;
        serde_json::from_str(text).map_err(|error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let message = error.to_string();
            let line = Some(error.line()).filter(|line| *line > 0);
            PolicyError::new(line, message.strip_suffix(&place).unwrap_or(&message))
        })
    }
}

fn bounded(text: &str) -> Result<(), PolicyError> {
    if text.len() <= TEXT_MAX {
        return Ok(());
    }
    Err(PolicyError::new(None, "a policy is at most 256 KiB of text"))
}

/// The known name that is most like the unknown one, if serde's message is about one.
fn near(message: &str) -> Option<&str> {
    let message = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = message.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2);
    let close = known.map(|name| (distance(unknown, name), name)).min()?;
    (close.0 <= 3).then_some(close.1)
}

/// How many letters must be added, removed or changed to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().take(64).enumerate() {
        let mut above = i;
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = above + usize::from(a != *b);
            above = row[j + 1];
            row[j + 1] = changed.min(above + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// A struct of the file: fields of its own, and those of [`Limits`].
macro_rules! stored {
    ($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)? }) => {
        #[derive(Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($(#[$attribute])* $field: $type,)*
            #[serde(skip_serializing_if = "Option::is_none")]
            per_request: Option<Money>,
            #[serde(skip_serializing_if = "Option::is_none")]
            per_top_up: Option<Money>,
            #[serde(skip_serializing_if = "Option::is_none")]
            per_day: Option<Money>,
            #[serde(skip_serializing_if = "Option::is_none")]
            per_week: Option<Money>,
            #[serde(skip_serializing_if = "Option::is_none")]
            per_month: Option<Money>,
            #[serde(skip_serializing_if = "Vec::is_empty", default)]
            rolling: Vec<Rolling>,
            #[serde(skip_serializing_if = "Option::is_none")]
            lifetime: Option<Money>,
            #[serde(skip_serializing_if = "Option::is_none")]
            payments_per_minute: Option<u32>,
        }

        impl $name {
            fn new(limits: &Limits, $($field: $type,)*) -> $name {
                let Limits { per_request, per_top_up, per_day, per_week, per_month, .. } = *limits;
                let Limits { rolling, lifetime, payments_per_minute, .. } = limits.clone();
                $name {
                    $($field,)* per_request, per_top_up, per_day, per_week, per_month, rolling,
                    lifetime, payments_per_minute,
                }
            }

            fn limits(&self) -> Limits {
                let $name { per_request, per_top_up, per_day, per_week, per_month, .. } = *self;
                let $name { lifetime, payments_per_minute, .. } = *self;
                let rolling = self.rolling.clone();
                Limits {
                    per_request, per_top_up, per_day, per_week, per_month, rolling, lifetime,
                    payments_per_minute,
                }
            }
        }
    };
}

stored!(StoredPolicy {
    #[serde(default)]
    allow: Hosts,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    block: Vec<HostPattern>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    trust: Vec<HostPattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask_above: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask_above_total: Option<Money>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    origin: Vec<OriginLimits>,
});

stored!(StoredOrigin { host: HostPattern });

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Policy { hosts, blocked, trusted, limits, origins, .. } = self.clone();
        let Policy { ask_above, ask_above_total, .. } = *self;
        StoredPolicy::new(&limits, hosts, blocked, trusted, ask_above, ask_above_total, origins)
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredPolicy::deserialize(deserializer)?;
        let limits = stored.limits();
        let StoredPolicy { allow, block, trust, ask_above, ask_above_total, origin, .. } = stored;
        Ok(Policy {
            hosts: allow,
            blocked: block,
            trusted: trust,
            limits,
            ask_above,
            ask_above_total,
            origins: origin,
        })
    }
}

impl Serialize for OriginLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StoredOrigin::new(self.limits(), self.host().clone()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OriginLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredOrigin::deserialize(deserializer)?;
        let limits = stored.limits();
        Ok(OriginLimits::of(stored.host, limits))
    }
}

impl Serialize for Hosts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Hosts::Any => serializer.serialize_str("any"),
            Hosts::Listed(entries) => entries.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> de::Visitor<'de> for Entries {
            type Value = Hosts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of hosts, or \"any\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hosts, E> {
                match text {
                    "any" => Ok(Hosts::Any),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, entries: A) -> Result<Hosts, A::Error> {
                let entries = de::value::SeqAccessDeserializer::new(entries);
                Vec::deserialize(entries).map(Hosts::Listed)
            }
        }
        deserializer.deserialize_any(Entries)
    }
}
