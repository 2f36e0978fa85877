//! Whether a JSON file says something of every key that it is to have, found by reading past everything else: agents' files grow to megabytes and are looked at
//! at each start, where taking them apart would cost milliseconds.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Whether there is nothing to add. A text that is no JSON object says nothing.
pub(super) fn says(text: &[u8], keys: &Value, over_false: bool) -> bool {
    let mut reader = serde_json::Deserializer::from_slice(text);
    text.trim_ascii_start().starts_with(b"{")
        && Wanted { keys, over_false }.deserialize(&mut reader).unwrap_or(false)
        && reader.end().is_ok()
}

#[derive(Clone, Copy)]
struct Wanted<'a> {
    keys: &'a Value,
    over_false: bool,
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: Error>(self, said: bool) -> Result<bool, E> {
        Ok(said || !self.over_false || *self.keys != Value::Bool(true))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<bool, A::Error> {
        let mut left: Vec<(&String, &Value)> = self.keys.as_object().into_iter().flatten().collect();
        let mut whole = true;
        while let Some(key) = entries.next_key::<String>()? {
            match left.iter().position(|(name, _)| **name == key) {
                Some(at) => {
                    let (_, keys) = left.swap_remove(at);
                    whole &= entries.next_value_seed(Wanted { keys, ..self })?;
                }
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(whole && left.is_empty())
    }
}
