//! Messages as bytes, and back. Pure.

/// The specification's longest message.
const LONGEST: usize = 1 << 27;

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Arg {
    Bool(bool),
    Byte(u8),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
    /// `a(sv)`: properties of a unit.
    Properties(Vec<(String, Arg)>),
    /// `a(sa(sv))` without any: further units.
    NoUnits,
}

impl Arg {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::Byte(_) => "y",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::F64(_) => "d",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Properties(_) => "a(sv)",
            Self::NoUnits => "a(sa(sv))",
        }
    }
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Little-endian marshalling; every value is aligned to its size from the message's start.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, n: u32) {
        self.align(4);
        self.0.extend(n.to_le_bytes());
    }

    fn eight(&mut self, bytes: [u8; 8]) {
        self.align(8);
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// Length of the elements, padding that does not count, elements.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(alignment);
        let begin = self.0.len();
        elements(self);
        let bytes = ((self.0.len() - begin) as u32).to_le_bytes();
        self.0.splice(length..length + 4, bytes);
    }

    fn arg(&mut self, arg: &Arg) {
        match arg {
            Arg::Bool(b) => self.u32(u32::from(*b)),
            Arg::Byte(b) => self.0.push(*b),
            Arg::I32(n) => self.u32(n.cast_unsigned()),
            Arg::U32(n) => self.u32(*n),
            Arg::I64(n) => self.eight(n.to_le_bytes()),
            Arg::U64(n) => self.eight(n.to_le_bytes()),
            Arg::F64(n) => self.eight(n.to_le_bytes()),
            Arg::Text(text) => self.text(text),
            Arg::Texts(all) => self.array(4, |out| all.iter().for_each(|t| out.text(t))),
            Arg::Numbers(all) => self.array(4, |out| all.iter().for_each(|n| out.u32(*n))),
            Arg::Bytes(all) => self.array(1, |out| out.0.extend(all)),
            Arg::NoUnits => self.array(8, |_| ()),
            Arg::Properties(all) => self.array(8, |out| {
                for (name, value) in all {
                    out.align(8);
                    out.text(name);
                    out.signature(value.signature());
                    out.arg(value);
                }
            }),
        }
    }
}

/// The other direction; `None` for anything that ends too early.
struct In<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> In<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let part = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(part)
    }

    fn u32(&mut self) -> Option<u32> {
        self.at = self.at.next_multiple_of(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(*self.take(1)?.first()?);
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.take(1)?;
        Some(text)
    }
}

pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

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
    /// Pure.
    pub(super) fn parse(header: &[u8], body: &[u8]) -> Option<Self> {
        let mut message = Self { kind: *header.get(1)?, ..Self::default() };
        let mut input = In { bytes: header, at: 12 };
        let end = input.u32()? as usize + 16;
        let mut signature = String::new();
        while input.at < end {
            input.at = input.at.next_multiple_of(8);
            let field = *input.take(1)?.first()?;
            let kind = input.signature()?;
            match (field, kind.as_str()) {
                (5, "u") => message.answers = input.u32()?,
                (3, "s") => message.member = input.text()?,
                (4, "s") => message.error = input.text()?,
                (8, "g") => signature = input.signature()?,
                (_, "s" | "o") => drop(input.text()?),
                (_, "u") => drop(input.u32()?),
                (_, "g") => drop(input.signature()?),
                _ => return None,
            }
        }
        message.body = strings(&signature, body);
        Some(message)
    }
}

/// The strings at the front of a body of strings, paths, numbers and variants of strings.
fn strings(signature: &str, body: &[u8]) -> Vec<String> {
    let mut input = In { bytes: body, at: 0 };
    let mut found = vec![];
    for kind in signature.chars() {
        let text = match kind {
            's' | 'o' => input.text(),
            'u' if input.u32().is_some() => continue,
            'v' => input.signature().filter(|s| s == "s" || s == "o").and_then(|_| input.text()),
            _ => None,
        };
        let Some(text) = text else { break };
        found.push(text);
    }
    found
}

/// How long a message's body and header fields are, from its first 16 bytes; only little-endian ones are known.
pub(super) fn lengths(header: &[u8]) -> Option<(usize, usize)> {
    let number = |at: usize| In { bytes: header, at }.u32().map(|n| n as usize).filter(|n| *n < LONGEST);
    if header.first() == Some(&b'l') { Some((number(4)?, number(12)?)) } else { None }
}

/// A method call. Pure.
pub(super) fn encode(serial: u32, [name, path, interface, member]: [&str; 4], args: &[Arg]) -> Vec<u8> {
    let mut body = Out::default();
    args.iter().for_each(|a| body.arg(a));
    let mut out = Out(vec![b'l', 1, 0, 1]);
    out.u32(body.0.len() as u32);
    out.u32(serial);
    let signature: String = args.iter().map(Arg::signature).collect();
    out.array(8, |out| {
        for (field, kind, text) in [(1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", name)] {
            out.align(8);
            out.0.push(field);
            out.signature(kind);
            out.text(text);
        }
        if !signature.is_empty() {
            out.align(8);
            out.0.push(8);
            out.signature("g");
            out.signature(&signature);
        }
    });
    out.align(8);
    out.0.extend(body.0);
    out.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_message_is_what_the_specification_says() {
        let bytes = encode(7, ["a.b", "/a", "c.d", "M"], &["x".into(), Arg::U64(1)]);
        assert_eq!(&bytes[..4], b"l\x01\x00\x01");
        assert_eq!(bytes[4..8], 16_u32.to_le_bytes(), "a string of one letter is six bytes, padded to eight");
        assert_eq!(bytes.len() % 8, 0);
        let fields = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let body = (16 + fields).next_multiple_of(8);
        assert_eq!(bytes[body..], [1, 0, 0, 0, b'x', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = encode(7, ["a.b", "/a", "c.d", "Member"], &["one".into(), Arg::U32(5), "two".into()]);
        let fields = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let body = bytes.split_off((16 + fields).next_multiple_of(8));
        let message = Message::parse(&bytes, &body).unwrap();
        assert_eq!(message.member, "Member");
        assert_eq!(message.body, ["one", "two"]);
    }

    #[test]
    fn arrays_align_their_elements_even_without_any() {
        let mut out = Out::default();
        out.arg(&Arg::NoUnits);
        assert_eq!(out.0, [0; 8]);
        let mut out = Out::default();
        out.arg(&Arg::Properties(vec![("P".into(), Arg::Bool(true))]));
        assert_eq!(out.0, [16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'P', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn truncated_messages_are_no_messages() {
        let bytes = encode(7, ["a.b", "/a", "c.d", "M"], &["x".into()]);
        for end in 0..32 {
            let _ = Message::parse(&bytes[..end], &[]);
        }
        assert!(strings("s", &[255, 255, 255, 255, 1]).is_empty());
    }
}
