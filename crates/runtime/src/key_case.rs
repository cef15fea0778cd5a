//! Keys of the specification in any case. Go's decoder, which all callers grew up with, does not regard it: `pagesize` is
//! `pageSize` there, and `CPU` is `cpu`.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// A value out of JSON whose keys may be in any case. Unknown ones are ignored; keys of maps (annotations, sysctls) are the
/// caller's own and stay as they are.
///
/// # Errors
/// What does not fit into `T`.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(AnyCase(value))
}

/// How an object spells the name of a field.
pub(crate) fn spelling(object: &Value, name: &str) -> Option<String> {
    let object = object.as_object()?;
    if object.contains_key(name) {
        Some(name.to_owned())
    } else {
        object.keys().find(|k| k.eq_ignore_ascii_case(name)).cloned()
    }
}

/// A field of an object.
pub(crate) fn field<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let key = spelling(object, name)?;
    object.get_mut(&key)
}

/// A field of an object, which has it from now on; `None` if it is no object.
pub(crate) fn field_or<'a>(object: &'a mut Value, name: &str, default: Value) -> Option<&'a mut Value> {
    let key = spelling(object, name).unwrap_or_else(|| name.to_owned());
    Some(object.as_object_mut()?.entry(key).or_insert(default))
}

/// A type tells its deserializer the names of its fields: there keys are turned into them.
struct AnyCase(Value);

impl IntoDeserializer<'_, Error> for AnyCase {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn rename(object: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    let exact: Vec<String> = object.keys().filter(|k| fields.contains(&k.as_str())).cloned().collect();
    let name = |key: String| {
        let field = fields.iter().find(|f| f.eq_ignore_ascii_case(&key) && !exact.iter().any(|e| e == *f));
        field.map_or(key, |f| (*f).to_owned())
    };
    object.into_iter().map(|(key, value)| (name(key), value)).collect()
}

impl<'de> Deserializer<'de> for AnyCase {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(k, v)| (k, Self(v))))),
            Value::Array(all) => visitor.visit_seq(SeqDeserializer::new(all.into_iter().map(Self))),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = match self.0 {
            Value::Object(map) => Value::Object(rename(map, fields)),
            other => other,
        };
        Self(value).deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use oci_spec::runtime::{LinuxResources, Spec};
    use serde_json::json;

    #[test]
    fn keys_in_any_case() {
        let given = json!({"CPU": {"Cpus": "0-1", "SHARES": 5}, "hugepageLimits": [{"pagesize": "2MB", "Limit": 7}],
            "blockio": {"throttlereadbpsdevice": [{"major": 8, "MINOR": 0, "rate": 9}]}, "Wings": 2,
            "unified": {"Memory.High": "7"}, "PIDS": {"limit": 3}});
        let meant = json!({"cpu": {"cpus": "0-1", "shares": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 7}],
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]},
            "unified": {"Memory.High": "7"}, "pids": {"limit": 3}});
        let expected: LinuxResources = serde_json::from_value(meant).unwrap();
        assert_eq!(from_value::<LinuxResources>(given).unwrap(), expected);
    }

    #[test]
    fn the_right_spelling_wins_and_maps_keep_their_keys() {
        let given = json!({"OCIVERSION": "0.1.0", "ociVersion": "1.0.2", "Hostname": "h", "annotations": {"Hostname": "x"},
            "Linux": {"namespaces": [{"Type": "pid"}], "sysctl": {"Type": "1"}, "rootfsPropagation": null}});
        let meant = json!({"ociVersion": "1.0.2", "hostname": "h", "annotations": {"Hostname": "x"},
            "linux": {"namespaces": [{"type": "pid"}], "sysctl": {"Type": "1"}}});
        assert_eq!(from_value::<Spec>(given).unwrap(), serde_json::from_value::<Spec>(meant).unwrap());
        assert!(from_value::<Spec>(json!({"Hostname": 5})).is_err());
        assert!(from_value::<Spec>(json!([1])).is_err());
    }
}
