//! Typed identities: a plan's id where a run's is wanted does not compile.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The identity of a `K`; a UUID version 7, so that ids sort by their time of creation.
pub struct Id<K> {
    uuid: uuid::Uuid,
    kind: PhantomData<fn() -> K>,
}

/// Marks a plan's id.
pub enum PlanKind {}
/// Marks a run's id.
pub enum RunKind {}
/// A plan's id.
pub type PlanId = Id<PlanKind>;
/// A run's id.
pub type RunId = Id<RunKind>;

impl<K> Id<K> {
    /// Wraps a UUID that a caller made or the database stored.
    pub const fn from_uuid(uuid: uuid::Uuid) -> Self {
        Self { uuid, kind: PhantomData }
    }

    /// The UUID.
    pub const fn uuid(self) -> uuid::Uuid {
        self.uuid
    }

    /// The last eight hexadecimal digits: the random part, enough to tell runs apart in names and messages.
    pub fn short(self) -> String {
        self.uuid.simple().to_string().split_off(24)
    }
}

impl<K> Copy for Id<K> {}
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<K> Eq for Id<K> {}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}
impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)
    }
}
impl<K> FromStr for Id<K> {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::from_uuid(text.parse()?))
    }
}
impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.uuid)
    }
}
impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
