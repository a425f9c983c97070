//! The content of a budget: pure, and the same wherever it is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use farebox_policy::{Decision, Hold, Policy, Request, Usage, decide};
use farebox_protocol::Micros;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::BudgetError;

/// Holds that may be open at a time.
pub(super) const OPEN_MAX: usize = 4_096;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sheet {
    usage: Usage,
    #[serde(deserialize_with = "bounded")]
    holds: BTreeMap<HoldId, Open>,
}

/// A hold whose outcome is not known. Its money is in the usage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    hold: Hold,
    owner: OwnerId,
}

impl Sheet {
    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(super) fn reserve(
        &mut self,
        id: HoldId,
        owner: OwnerId,
        policy: &Policy,
        request: &Request<'_>,
        now: i64,
    ) -> Result<(Decision, Option<Hold>), BudgetError> {
        if let Some(open) = self.holds.get(&id) {
            return Ok((Decision::Allow, Some(open.hold.clone())));
        }
        let (decision, usage) = decide(policy, &self.usage, request, now);
        if decision != Decision::Allow {
            return Ok((decision, None));
        }
        let hold = request.hold(now);
        if let Some(hold) = &hold {
            if self.holds.len() >= OPEN_MAX {
                return Err(BudgetError::Full);
            }
            if let Some(usage) = usage {
                self.usage = usage;
            }
            self.holds.insert(id, Open { hold: hold.clone(), owner });
        }
        Ok((decision, hold))
    }

    pub(super) fn close(&mut self, id: HoldId) {
        self.holds.remove(&id);
    }

    pub(super) fn release(&mut self, id: HoldId) {
        if let Some(open) = self.holds.remove(&id) {
            self.usage = self.usage.release(&open.hold);
        }
    }

    pub(super) fn open_of(&self, owner: OwnerId) -> Vec<(HoldId, Hold)> {
        let open = self.holds.iter().filter(|(_, open)| open.owner == owner);
        open.map(|(id, open)| (*id, open.hold.clone())).collect()
    }
}

fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<HoldId, Open>, D::Error> {
    let holds: BTreeMap<HoldId, Open> = BTreeMap::deserialize(deserializer)?;
    if holds.len() > OPEN_MAX {
        return Err(de::Error::custom("more open holds than are kept"));
    }
    // Nobody holds that; releasing it could free money that is held.
    if holds.values().any(|open| open.hold.amount().micros() <= Micros::ZERO) {
        return Err(de::Error::custom("a hold of nothing"));
    }
    Ok(holds)
}

/// Names one hold, for ever.
pub(crate) type HoldId = Id<OfHold>;
/// Names whoever opened a hold: one agent's journal.
pub(crate) type OwnerId = Id<OfOwner>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OfHold {}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OfOwner {}

/// 128 random bits, written as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id<K>(u128, PhantomData<K>);

impl<K> Id<K> {
    pub(crate) fn random() -> Result<Id<K>, getrandom::Error> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits)?;
        Ok(Id(u128::from_be_bytes(bits), PhantomData))
    }
}

impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of 32 lower-case hex digits")]
pub(crate) struct NotAnId;

impl<K> FromStr for Id<K> {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Id<K>, NotAnId> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(NotAnId);
        }
        let bits = u128::from_str_radix(text, 16).map_err(|_| NotAnId)?;
        Ok(Id(bits, PhantomData))
    }
}

impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
