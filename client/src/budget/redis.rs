//! A budget in Redis: a sheet and its version under one key, replaced only by whoever read the
//! version that stands there.
//!
//! An answer that is lost leaves it open whether the sheet was replaced. The change is then made
//! again, on what stands there: all changes are written so that a second one alters nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use farebox_policy::Usage;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};

use super::sheet::Sheet;
use super::{BudgetError, SCHEMA};
use crate::file::{decode, encode};

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long a change waits and is tried: others may be first, and connections fail.
const TRY_FOR: Duration = Duration::from_secs(10);
const PAUSE_MILLIS_MAX: u64 = 16;

pub(super) struct Shared {
    client: Client,
    key: String,
    swap: Script,
    /// One change of this process at a time: its tasks do not compete for the version.
    turn: tokio::sync::Mutex<Turn>,
    last: Mutex<Usage>,
}

#[derive(Default)]
struct Turn {
    connection: Option<MultiplexedConnection>,
    /// The highest version that was seen.
    version: u64,
}

/// The version and the sheet, as Redis has them.
type Fields = (Option<String>, Option<Vec<u8>>);

/// What stands in Redis.
struct Found {
    sheet: Sheet,
    version: u64,
    /// Unix seconds, by the clock of Redis.
    now: i64,
}

/// One attempt that did not change anything, as far as it knows.
enum Failed {
    Overtaken,
    Redis(RedisError),
    For(BudgetError),
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Failed {
        Failed::Redis(error)
    }
}

impl Shared {
    pub(super) fn new(url: &str, name: &str) -> Result<Shared, BudgetError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another one may have been installed meanwhile; that one is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        Ok(Shared {
            client: Client::open(url).map_err(|error| unavailable(&error))?,
            key: format!("{{{name}}}.budget"),
            swap: Script::new(include_str!("swap.lua")),
            turn: tokio::sync::Mutex::default(),
            last: Mutex::default(),
        })
    }

    pub(super) fn last_usage(&self) -> Usage {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn read(&self) -> Result<Sheet, BudgetError> {
        self.change(|sheet, _| sheet.clone()).await
    }

    pub(super) async fn change<R>(
        &self,
        change: impl Fn(&mut Sheet, Option<i64>) -> R,
    ) -> Result<R, BudgetError> {
        let started = Instant::now();
        let turn = tokio::time::timeout(TRY_FOR, self.turn.lock()).await;
        let mut turn = turn.map_err(|_| BudgetError::Busy)?;
        loop {
            let error = match self.attempt(&mut turn, &change).await {
                Ok(result) => return Ok(result),
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::Overtaken) => BudgetError::Busy,
                Err(Failed::Redis(error)) => {
                    turn.connection = None;
                    unavailable(&error)
                }
            };
            if started.elapsed() > TRY_FOR {
                return Err(error);
            }
            tokio::time::sleep(pause()).await;
        }
    }

    async fn attempt<R>(
        &self,
        turn: &mut Turn,
        change: impl Fn(&mut Sheet, Option<i64>) -> R,
    ) -> Result<R, Failed> {
        let mut connection = match turn.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let found = self.find(&mut connection, &mut turn.version).await?;
        let mut sheet = found.sheet.clone();
        let result = change(&mut sheet, Some(found.now));
        if sheet != found.sheet {
            self.replace(&mut connection, found.version, &sheet).await?;
            turn.version = found.version + 1;
        }
        turn.connection = Some(connection);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = sheet.usage().clone();
        Ok(result)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_connection_timeout(Some(CONNECT_WITHIN));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn find(
        &self,
        connection: &mut MultiplexedConnection,
        seen: &mut u64,
    ) -> Result<Found, Failed> {
        let mut pipe = redis::pipe();
        pipe.hmget(&self.key, &["version", "sheet"]).cmd("TIME");
        let (fields, (now, _)): (Fields, (i64, i64)) = pipe.query_async(connection).await?;
        let malformed = || Failed::For(BudgetError::Malformed(self.key.clone()));
        let (version, sheet) = match fields {
            (None, None) => (0, Sheet::default()),
            (Some(version), Some(sheet)) => {
                let version = version.parse().map_err(|_| malformed())?;
                (version, decode(SCHEMA, &sheet).ok_or_else(malformed)?)
            }
            _ => return Err(malformed()),
        };
        if version < *seen {
            return Err(Failed::For(BudgetError::Lost(self.key.clone())));
        }
        *seen = version;
        Ok(Found { sheet, version, now })
    }

    async fn replace(
        &self,
        connection: &mut MultiplexedConnection,
        version: u64,
        sheet: &Sheet,
    ) -> Result<(), Failed> {
        let json = encode(SCHEMA, sheet);
        let json = json.map_err(|_| Failed::For(BudgetError::Malformed(self.key.clone())))?;
        let mut call = self.swap.key(&self.key);
        call.arg(version).arg(json);
        match call.invoke_async(connection).await? {
            1 => Ok(()),
            _ => Err(Failed::Overtaken),
        }
    }
}

/// Different in every process, so that they do not meet again.
fn pause() -> Duration {
    let random = getrandom::u64().unwrap_or_default();
    Duration::from_millis(1 + random % PAUSE_MILLIS_MAX)
}

fn unavailable(error: &RedisError) -> BudgetError {
    BudgetError::Unavailable(error.to_string())
}
