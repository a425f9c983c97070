//! The content of a budget: pure, and the same wherever it is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use farebox_policy::{Decision, Hold, Policy, Request, Usage, decide};
use farebox_protocol::Micros;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Holds that may be open at a time. An agent that is killed and never started again leaves its
/// own for ever.
pub(super) const OPEN_MAX: usize = 4_096;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sheet {
    usage: Usage,
    /// Those whose outcome is not known. Their money is in the usage.
    #[serde(deserialize_with = "bounded")]
    holds: BTreeMap<HoldId, Hold>,
}

impl Sheet {
    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(super) fn reserve(
        &mut self,
        id: HoldId,
        policy: &Policy,
        request: &Request<'_>,
        now: i64,
    ) -> (Decision, Option<Hold>) {
        if let Some(hold) = self.holds.get(&id) {
            return (Decision::Allow, Some(hold.clone()));
        }
        let (decision, usage) = decide(policy, &self.usage, request, now);
        if decision != Decision::Allow {
            return (decision, None);
        }
        let hold = request.hold(now);
        if let Some(hold) = &hold {
            if let Some(usage) = usage {
                self.usage = usage;
            }
            self.make_room();
            self.holds.insert(id, hold.clone());
        }
        (decision, hold)
    }

    /// Closes the oldest hold of a full sheet: it can only stay counted.
    fn make_room(&mut self) {
        if self.holds.len() >= OPEN_MAX {
            let oldest = self.holds.iter().min_by_key(|(_, hold)| hold.at());
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.close(id);
            }
        }
    }

    pub(super) fn close(&mut self, id: HoldId) {
        self.holds.remove(&id);
    }

    pub(super) fn release(&mut self, id: HoldId) {
        if let Some(hold) = self.holds.remove(&id) {
            self.usage = self.usage.release(&hold);
        }
    }

    #[cfg(test)]
    pub(super) fn holds(&self) -> &BTreeMap<HoldId, Hold> {
        &self.holds
    }
}

fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<HoldId, Hold>, D::Error> {
    let holds: BTreeMap<HoldId, Hold> = BTreeMap::deserialize(deserializer)?;
    if holds.len() > OPEN_MAX {
        return Err(de::Error::custom("more open holds than are kept"));
    }
    // Nobody holds that; releasing it could free money that is held.
    if holds.values().any(|hold| hold.amount().micros() <= Micros::ZERO) {
        return Err(de::Error::custom("a hold of nothing"));
    }
    Ok(holds)
}

/// Names one hold, for ever: 128 random bits, written as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HoldId(u128);

impl HoldId {
    pub(crate) fn random() -> Result<HoldId, getrandom::Error> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits)?;
        Ok(HoldId(u128::from_be_bytes(bits)))
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name of 32 lower-case hex digits")]
pub(crate) struct NotAHoldId;

impl FromStr for HoldId {
    type Err = NotAHoldId;

    fn from_str(text: &str) -> Result<HoldId, NotAHoldId> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(NotAHoldId);
        }
        let bits = u128::from_str_radix(text, 16).map_err(|_| NotAHoldId)?;
        Ok(HoldId(bits))
    }
}

impl Serialize for HoldId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HoldId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
