//! List objects: newest first, a page at a time.
//!
//! Source: Stripe's page "Pagination".

use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::state::{Stored, Table};

const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: i64 = 100;

enum Cursor {
    None,
    After(String),
    Before(String),
}

/// Which part of a list is wanted.
pub(crate) struct Page {
    limit: usize,
    cursor: Cursor,
    created: Created,
}

/// Bounds of `created`, inclusive, in seconds since 1970.
struct Created {
    from: i64,
    to: i64,
}

impl Page {
    /// Reads `limit` alone: the first page.
    pub(crate) fn read_first(params: &mut Params) -> ApiResult<Self> {
        let limit = match params.integer("limit")? {
            None => DEFAULT_LIMIT,
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|_| (1..=MAX_LIMIT).contains(&limit))
                .ok_or_else(|| {
                    ApiError::invalid(format!("This value must be between 1 and {MAX_LIMIT}."))
                        .code("parameter_invalid_integer")
                        .param("limit")
                })?,
        };
        let created = Created { from: i64::MIN, to: i64::MAX };
        Ok(Self { limit, cursor: Cursor::None, created })
    }

    /// Reads `limit`, `starting_after` and `ending_before`.
    pub(crate) fn read(params: &mut Params) -> ApiResult<Self> {
        let mut page = Self::read_first(params)?;
        page.cursor = match (params.text("starting_after")?, params.text("ending_before")?) {
            (None, None) => Cursor::None,
            (Some(id), None) => Cursor::After(id),
            (None, Some(id)) => Cursor::Before(id),
            (Some(_), Some(_)) => {
                let message =
                    "You may only specify one of these parameters: starting_after, ending_before.";
                return Err(ApiError::invalid(message).code("parameters_exclusive"));
            }
        };
        Ok(page)
    }

    /// Reads `created=T` or `created[gte|gt|lte|lt]=T` as well.
    pub(crate) fn read_created(mut self, params: &mut Params) -> ApiResult<Self> {
        self.created = Created::read(params)?;
        Ok(self)
    }

    /// The first page of what a search found.
    pub(crate) fn search_result(&self, url: &str, mut found: Vec<Value>) -> Value {
        let has_more = found.len() > self.limit;
        found.truncate(self.limit);
        json!({
            "object": "search_result",
            "url": url,
            "has_more": has_more,
            "next_page": null,
            "data": found,
        })
    }

    /// `noun` is what Stripe calls such an object when it does not exist.
    pub(crate) fn list<T: Stored + Clone>(
        &self,
        table: &Table<T>,
        (noun, url): (&str, &str),
        wanted: impl Fn(&T) -> bool,
        show: impl Fn(&T) -> Value,
    ) -> ApiResult<Value> {
        let in_range = |row: &&T| {
            (self.created.from..=self.created.to).contains(&row.created()) && wanted(row)
        };
        let known = |id: &str, param| {
            if table.contains(id) { Ok(()) } else { Err(ApiError::missing(noun, id, param)) }
        };
        // One row more than the page tells whether there is a next one.
        let more = self.limit + 1;
        let mut rows: Vec<&T> = match &self.cursor {
            Cursor::None => table.newest_first().filter(in_range).take(more).collect(),
            Cursor::After(id) => {
                known(id, "starting_after")?;
                let older = table.newest_first().skip_while(|row| row.id() != id).skip(1);
                older.filter(in_range).take(more).collect()
            }
            Cursor::Before(id) => {
                known(id, "ending_before")?;
                let newer = table.newest_first().rev().skip_while(|row| row.id() != id).skip(1);
                newer.filter(in_range).take(more).collect()
            }
        };
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        if matches!(self.cursor, Cursor::Before(_)) {
            rows.reverse();
        }
        let data: Vec<Value> = rows.into_iter().map(show).collect();
        Ok(json!({ "object": "list", "url": url, "has_more": has_more, "data": data }))
    }
}

impl Created {
    fn read(params: &mut Params) -> ApiResult<Self> {
        let mut bounds = Self { from: i64::MIN, to: i64::MAX };
        if params.is_text("created") {
            if let Some(at) = params.integer("created")? {
                bounds = Self { from: at, to: at };
            }
            return Ok(bounds);
        }
        params.object("created", |range| {
            if let Some(at) = range.integer("gte")? {
                bounds.from = bounds.from.max(at);
            }
            if let Some(at) = range.integer("gt")? {
                bounds.from = bounds.from.max(at.saturating_add(1));
            }
            if let Some(at) = range.integer("lte")? {
                bounds.to = bounds.to.min(at);
            }
            if let Some(at) = range.integer("lt")? {
                bounds.to = bounds.to.min(at.saturating_sub(1));
            }
            Ok(())
        })?;
        Ok(bounds)
    }
}
