//! Keys of the specification in any case. Go's decoder, which all callers grew up with, does not regard it: `pagesize` is
//! `pageSize` there, and `CPU` is `cpu`.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// A value out of JSON whose keys may be in any case. Unknown ones are ignored; keys of maps (annotations, sysctls) are the
/// caller's own and stay as they are.
///
/// Every configuration is read this way, and none in another: each way would be one more copy of oci-spec's code.
///
/// # Errors
/// What does not fit into `T`, with its place in the text; a key that is there twice.
pub(crate) fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let mut text = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(AnyCase(&mut text))?;
    text.end()?;
    Ok(value)
}

/// As [`from_slice`], out of a tree.
///
/// # Errors
/// As there; the place is of no use.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    from_slice(&serde_json::to_vec(value)?)
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
struct AnyCase<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for AnyCase<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Within { inner: visitor, fields: &[] })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Within { inner: visitor, fields })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Within { inner: visitor, fields: &[] })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Within { inner: visitor, fields: &[] })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// A visitor, or what it is given, that passes [`AnyCase`] on to what is inside. Without fields it is one of a map.
struct Within<T> {
    inner: T,
    fields: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }
    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<V::Value, E> {
        self.inner.visit_bool(v)
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<V::Value, E> {
        self.inner.visit_i64(v)
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<V::Value, E> {
        self.inner.visit_u64(v)
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<V::Value, E> {
        self.inner.visit_f64(v)
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<V::Value, E> {
        self.inner.visit_str(v)
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(AnyCase(d))
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(AnyCase(d))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, all: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Within { inner: all, fields: &[] })
    }
    fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Within { inner: all, fields: self.fields })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(AnyCase(seed))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Within { inner: seed, fields: self.fields })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(AnyCase(seed))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for AnyCase<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(AnyCase(d))
    }
}

/// A key on its way to become the name of a field.
impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Within<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<S::Value, D::Error> {
        if self.fields.is_empty() { self.inner.deserialize(d) } else { d.deserialize_str(Key(self)) }
    }
}

struct Key<S>(Within<S>);

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Key<S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<S::Value, E> {
        let fields = self.0.fields;
        let meant = fields.iter().find(|f| **f == key).or_else(|| fields.iter().find(|f| f.eq_ignore_ascii_case(key)));
        self.0.inner.deserialize(meant.copied().unwrap_or(key).into_deserializer())
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
        assert_eq!(from_value::<LinuxResources>(&given).unwrap(), expected);
    }

    #[test]
    fn maps_keep_their_keys_and_nothing_is_said_twice() {
        let given = json!({"ociVersion": "1.0.2", "Hostname": "h", "annotations": {"Hostname": "x", "hostname": "y"},
            "Linux": {"namespaces": [{"Type": "pid"}], "sysctl": {"Type": "1"}, "rootfsPropagation": null}, "wings": {"Linux": 1}});
        let meant = json!({"ociVersion": "1.0.2", "hostname": "h", "annotations": {"Hostname": "x", "hostname": "y"},
            "linux": {"namespaces": [{"type": "pid"}], "sysctl": {"Type": "1"}}});
        assert_eq!(from_value::<Spec>(&given).unwrap(), serde_json::from_value::<Spec>(meant).unwrap());
        let twice = from_value::<Spec>(&json!({"OCIVERSION": "0.1.0", "ociVersion": "1.0.2"})).unwrap_err();
        assert!(twice.to_string().contains("duplicate field `ociVersion`"), "{twice}");
        assert!(from_value::<Spec>(&json!({"Hostname": 5})).is_err());
        assert!(from_value::<Spec>(&json!([1])).is_err());
        assert!(from_slice::<Spec>(b"{\"ociVersion\": \"1.0.2\"} x").is_err());
    }
}
