//! The hot pair: `Reserve` and `Settle` as scripts, in the common case.

use farebox_protocol::{Currency, Micros, PayerId};
use redis::{FromRedisValue as _, Value};

use super::settles::Settle;
use super::{Core, Failure, Tries, keys};
use crate::book::ReservationId;
use crate::clock::Timestamp;
use crate::machine::{Applied, Command, Outcome, Proof, Then};
use crate::store::StoreError;

/// How a command is applied.
pub(super) enum Way {
    Reserve(Reserve),
    Settle(Settle),
    /// Read, decided here, written.
    Decide,
}

/// A reservation that the script can make: with a credential, and without a key.
pub(super) struct Reserve {
    payer: PayerId,
    id: ReservationId,
    currency: Currency,
    amount: Micros,
    ttl: u32,
    generation: u32,
    number: Option<u16>,
}

pub(super) fn of(payer: &PayerId, command: &Command, operation: &str) -> Way {
    match command {
        Command::Reserve {
            id,
            currency,
            amount,
            ttl,
            proof: Proof::Credential { generation, number },
            claim: None,
        } => Way::Reserve(Reserve {
            payer: *payer,
            id: *id,
            currency: *currency,
            amount: *amount,
            ttl: *ttl,
            generation: *generation,
            number: *number,
        }),
        Command::Settle { id, claim: None, lines, then: Then::Close } if lines.len() <= 1 => {
            let line = lines.first().map(|line| (line.route.clone(), line.spent));
            Way::Settle(Settle { payer: *payer, id: *id, operation: operation.to_owned(), line })
        }
        _ => Way::Decide,
    }
}

/// What a script of the pair answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hot {
    /// It is decided.
    Decided(Applied),
    /// The usage key was of another week; nothing was written.
    Week { at: Timestamp },
    /// Not the common case; nothing was written.
    Slow,
}

impl Hot {
    pub(super) fn applied(self) -> Option<Applied> {
        match self {
            Hot::Decided(applied) => Some(applied),
            Hot::Week { .. } | Hot::Slow => None,
        }
    }

    pub(super) fn read(value: Value) -> Result<Hot, Failure> {
        let parts = Vec::<Value>::from_redis_value(not_lost(value)?).map_err(unreadable)?;
        let name: String = part(&parts, 0)?;
        if name == "SLOW" {
            return Ok(Hot::Slow);
        }
        let (at, seq) = (Timestamp::from_millis(part(&parts, 1)?), part(&parts, 2)?);
        let micros = || {
            let micros = part::<i64>(&parts, 3)?;
            Micros::new(micros).ok_or_else(|| unreadable("an amount is out of range"))
        };
        let outcome = match name.as_str() {
            "RESERVED" => Outcome::Reserved { available: micros()? },
            "SETTLED" => Outcome::Settled { available: micros()? },
            "SHORT" => Outcome::Insufficient { missing: micros()? },
            "LIMIT" => Outcome::LimitReached { left: micros()? },
            "UNAUTHORIZED" => Outcome::Unauthorized,
            "CONFLICT" => Outcome::Conflict,
            "FROZEN" => Outcome::Frozen,
            "RANGE" => Outcome::OutOfRange,
            "EXPIRED" => Outcome::Expired,
            "WEEK" => return Ok(Hot::Week { at }),
            _ => return Err(unreadable("a script answers a word that is not known")),
        };
        Ok(Hot::Decided(Applied { outcome, at, seq }))
    }
}

fn part<T: redis::FromRedisValue>(parts: &[Value], at: usize) -> Result<T, Failure> {
    let value = parts.get(at).cloned().unwrap_or(Value::Nil);
    T::from_redis_value(value).map_err(unreadable)
}

fn unreadable(reason: impl std::fmt::Display) -> Failure {
    Failure::Final(StoreError::new(reason))
}

/// A script's answer, unless it says that the bucket has lost its records.
pub(super) fn not_lost(value: Value) -> Result<Value, Failure> {
    let word = match &value {
        Value::Array(parts) => parts.first(),
        _ => None,
    };
    match word {
        Some(Value::BulkString(word)) if word == b"LOST" => Err(Failure::Lost),
        _ => Ok(value),
    }
}

impl Core {
    pub(super) async fn reserve(&self, reserve: &Reserve) -> Result<Hot, StoreError> {
        let Reserve { payer, id, currency, amount, ttl, generation, number } = reserve;
        let number = number.map_or("-".to_owned(), |number| number.to_string());
        let bucket = keys::bucket_of(payer);
        let mut tries = Tries::new();
        loop {
            let mut call = self.scripts.reserve.call();
            call.key(self.keys.bucket(bucket)).key(self.keys.book(payer));
            call.key(self.keys.payers(bucket));
            call.arg(&self.epoch).arg(keys::reservation(payer, id)).arg(currency.code());
            call.arg(amount.get()).arg(ttl).arg(generation).arg(&number);
            let answer = call.run(&self.link).await;
            match answer.map_err(Failure::from).and_then(Hot::read) {
                Ok(hot) => return Ok(hot),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }
}
