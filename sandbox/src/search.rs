//! Stripe's search language, as far as Customers are searched with it: clauses like
//! `metadata['order']:'6735'` or `email~'@example.com'`, joined by `AND`, each negated by `-`.
//!
//! Source: Stripe's page "Search", section "Query language". Stripe's index is behind by up to a
//! minute; this one is not.

use crate::error::{ApiError, ApiResult};

/// One condition of a query.
struct Clause {
    negated: bool,
    field: Field,
    /// `~`: the value is a part of the field, in any case of its letters.
    partial: bool,
    value: String,
}

/// What a clause looks at.
pub(crate) enum Field {
    /// A field of the object.
    Named(String),
    /// `metadata['key']`
    Metadata(String),
}

/// A parsed query: every clause must hold.
pub(crate) struct Query(Vec<Clause>);

impl Query {
    pub(crate) fn parse(text: &str) -> ApiResult<Query> {
        let mut clauses = Vec::new();
        let mut rest = text.trim();
        loop {
            let (clause, behind) = clause(rest).ok_or_else(|| refused(text))?;
            clauses.push(clause);
            match behind.trim_start() {
                "" => return Ok(Query(clauses)),
                behind => rest = behind.strip_prefix("AND ").ok_or_else(|| refused(text))?,
            }
        }
    }

    /// Whether every clause holds. `field` is the value of a field; outside: there is no such
    /// field to search for; inside: this object has none.
    pub(crate) fn matches(
        &self,
        field: impl Fn(&Field) -> Option<Option<String>>,
    ) -> ApiResult<bool> {
        let mut all = true;
        for clause in &self.0 {
            let found = field(&clause.field).ok_or_else(|| {
                let message = "The query searches a field that customers cannot be searched by.";
                ApiError::invalid(message).param("query")
            })?;
            let holds = found.is_some_and(|found| {
                if clause.partial {
                    found.to_lowercase().contains(&clause.value.to_lowercase())
                } else {
                    found == clause.value
                }
            });
            all &= holds != clause.negated;
        }
        Ok(all)
    }
}

/// The first clause of a query, and what is behind it.
fn clause(text: &str) -> Option<(Clause, &str)> {
    let text = text.trim_start();
    let (negated, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (field, text) = match text.strip_prefix("metadata[") {
        Some(text) => {
            let (key, text) = quoted(text)?;
            (Field::Metadata(key), text.strip_prefix(']')?)
        }
        None => {
            let end = text.find([':', '~'])?;
            (Field::Named(text[..end].trim().to_owned()), &text[end..])
        }
    };
    let partial = text.starts_with('~');
    let text = text.strip_prefix([':', '~'])?;
    let (value, text) = quoted(text)?;
    Some((Clause { negated, field, partial, value }, text))
}

/// A value between single or double quotation marks, in which a backslash escapes one.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut letters = text.char_indices();
    let (_, quote) = letters.next().filter(|(_, mark)| matches!(mark, '\'' | '"'))?;
    let mut value = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.push(letters.next()?.1),
            letter if letter == quote => return Some((value, &text[at + 1..])),
            letter => value.push(letter),
        }
    }
    None
}

fn refused(query: &str) -> ApiError {
    let message = format!("We were unable to parse your search query: {query:?}.");
    ApiError::invalid(message).param("query")
}
