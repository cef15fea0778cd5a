//! Messages as bytes, and back (dbus-specification, "Message Format"). Pure. The types are zbus' to marshal.

use serde::ser::{Error as _, Serialize, SerializeSeq, Serializer};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{LE, to_bytes};
use zbus::{Error, ObjectPath, Result, Signature, Structure, Type, Variant, as_variant};

/// The specification's longest message.
const LONGEST: u32 = 1 << 27;
/// Bytes of a header that tell how long everything is.
pub(super) const PREFIX: usize = 16;
/// What follows a header begins at a multiple of it.
const ALIGNMENT: usize = 8;

const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// Byte order, kind, flags, version, length of the body, serial, fields.
type Header<Fields> = (u8, u8, u8, u8, u32, u32, Fields);

/// Everything begins at an aligned place.
fn context() -> Context {
    Context::new(LE, 0)
}

/// Fields of a method call's header.
struct CallFields<'a> {
    names: [&'a str; 4],
    body: BodySignature,
}

impl Type for CallFields<'_> {
    const SIGNATURE: &'static Signature = <Vec<(u8, Variant<'_>)>>::SIGNATURE;
}

impl Serialize for CallFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let [name, path, interface, member] = self.names;
        let path = ObjectPath::try_from(path).map_err(S::Error::custom)?;
        let mut fields = serializer.serialize_seq(None)?;
        fields.serialize_element(&(1_u8, Variant::from(path)))?;
        for (code, text) in [(2_u8, interface), (3, member), (6, name)] {
            fields.serialize_element(&(code, Variant::from(text)))?;
        }
        if !self.body.0.is_empty() {
            fields.serialize_element(&(8_u8, as_variant::Serialize(&self.body)))?;
        }
        fields.end()
    }
}

/// The types of a body, one after the other: without the parentheses that zbus gives to a tuple.
struct BodySignature(String);

impl Type for BodySignature {
    const SIGNATURE: &'static Signature = &Signature::Signature;
}

impl Serialize for BodySignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A method call with a tuple of arguments.
pub(super) fn encode<B: Serialize + Type>(serial: u32, names: [&str; 4], args: &B) -> Result<Vec<u8>> {
    let body = to_bytes(context(), args)?;
    let length = u32::try_from(body.len()).ok().filter(|n| *n < LONGEST).ok_or_else(too_long)?;
    let fields = CallFields { names, body: BodySignature(B::SIGNATURE.to_string_no_parens()) };
    let header: Header<CallFields> = (b'l', CALL, 0, 1, length, serial, fields);
    let mut out = to_bytes(context(), &header)?.to_vec();
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out.extend_from_slice(&body);
    Ok(out)
}

fn too_long() -> Error {
    Error::Failure("it is too long".into())
}

/// How long a message's whole header and its body are, from its first [`PREFIX`] bytes; only little-endian ones are known.
pub(super) fn lengths(prefix: &[u8]) -> Result<(usize, usize)> {
    let data = Data::new(prefix, context());
    let (order, _, _, _, body, _, fields) = data.deserialize::<Header<u32>>()?.0;
    if order != b'l' {
        return Err(Error::IncorrectEndian);
    }
    if body >= LONGEST || fields >= LONGEST {
        return Err(too_long());
    }
    Ok(((PREFIX + fields as usize).next_multiple_of(ALIGNMENT), body as usize))
}

/// A message that came in; of its body only the strings are kept, in order.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub kind: u8,
    pub answers: u32,
    pub member: String,
    pub error: String,
    pub body: Vec<String>,
}

impl Message {
    pub(super) fn parse(header: &[u8], body: &[u8]) -> Result<Self> {
        let data = Data::new(header, context());
        let (_, kind, _, _, _, _, fields) = data.deserialize::<Header<Vec<(u8, Variant<'_>)>>>()?.0;
        let mut message = Self { kind, ..Self::default() };
        for (code, value) in fields {
            match (code, value) {
                (3, Variant::Str(text)) => message.member = text.to_string(),
                (4, Variant::Str(text)) => message.error = text.to_string(),
                (5, Variant::U32(serial)) => message.answers = serial,
                (8, Variant::Signature(signature)) => message.body = strings(signature, body)?,
                _ => {}
            }
        }
        Ok(message)
    }
}

/// The strings and paths of a body, also those in variants.
fn strings(signature: Signature, body: &[u8]) -> Result<Vec<String>> {
    let whole = match signature {
        Signature::Unit => return Ok(vec![]),
        several @ Signature::Structure(_) => several,
        one => Signature::structure(vec![one]),
    };
    let data = Data::new(body, context());
    let values: Structure<'_> = data.deserialize_for_dynamic_signature(whole)?.0;
    Ok(values.into_fields().into_iter().filter_map(text).collect())
}

fn text(value: Variant<'_>) -> Option<String> {
    match value {
        Variant::Str(text) => Some(text.to_string()),
        Variant::ObjectPath(path) => Some(path.to_string()),
        Variant::Variant(inner) => text(*inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NAMES: [&str; 4] = ["a.b", "/a", "c.d", "Member"];

    fn split(mut bytes: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
        let (header, body) = lengths(&bytes[..PREFIX]).unwrap();
        assert_eq!(bytes.len(), header + body);
        let body = bytes.split_off(header);
        (bytes, body)
    }

    #[test]
    fn a_message_is_what_the_specification_says() {
        let (header, body) = split(encode(7, NAMES, &("x", 1_u64)).unwrap());
        assert_eq!(&header[..12], b"l\x01\x00\x01\x10\0\0\0\x07\0\0\0");
        // The path, a byte of code and its signature before it, is the first field; the body's types are the last.
        assert_eq!(&header[16..28], b"\x01\x01o\0\x02\0\0\0/a\0\0");
        let last = header.windows(8).position(|w| w == b"\x08\x01g\0\x02st\0");
        assert_eq!(last.map(|at| at % 8), Some(0), "{header:?}");
        assert_eq!(body, [1, 0, 0, 0, b'x', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let path = ObjectPath::try_from("/p").unwrap();
        let (header, body) = split(encode(7, NAMES, &("one", 5_u32, path, Variant::from("four"))).unwrap());
        let message = Message::parse(&header, &body).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (CALL, "Member"));
        assert_eq!(message.body, ["one", "/p", "four"]);
        for (header, body) in
            [split(encode(1, NAMES, &()).unwrap()), split(encode(1, NAMES, &(Vec::<u32>::new(),)).unwrap())]
        {
            assert_eq!(Message::parse(&header, &body).unwrap().body, Vec::<String>::new());
        }
        assert!(encode(1, ["a.b", "no path", "c.d", "M"], &()).is_err());
    }

    #[test]
    fn arrays_align_their_elements_even_without_any() {
        let none = to_bytes(context(), &(Vec::<(&str, Vec<(String, Variant<'_>)>)>::new(),)).unwrap();
        assert_eq!(*none, [0; 8]);
        let one = to_bytes(context(), &(vec![("P".to_owned(), Variant::Bool(true))],)).unwrap();
        assert_eq!(*one, [16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'P', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn damaged_messages_are_no_messages() {
        let (header, body) = split(encode(7, NAMES, &("x",)).unwrap());
        // The last byte is the NUL behind the body's signature, which zbus does not miss.
        for end in 0..PREFIX + usize::from(header[12]) - 1 {
            assert!(end >= PREFIX || lengths(&header[..end]).is_err(), "{end}");
            assert!(Message::parse(&header[..end], &body).is_err(), "{end}");
        }
        assert!(Message::parse(&header, &[255, 255, 255, 255, 1]).is_err());
        assert!(lengths(b"B\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\0").is_err());
        assert!(lengths(b"l\x01\0\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0").is_err());
    }
}
