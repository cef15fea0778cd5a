//! Why the kernel refused a request, in its own words where the socket asked for them (NETLINK_EXT_ACK of netlink(7)).

use std::fmt;
use std::io;

use rtnetlink::packet_core::{ErrorMessage, NlaBuffer, NlasIterator};

/// The answer has attributes (NLM_F_ACK_TLVS of linux/netlink.h).
const WITH_ATTRIBUTES: u16 = 0x200;
/// The answer repeats the header of the request only (NLM_F_CAPPED).
const CAPPED: u16 = 0x100;
/// Bytes of a message's header.
const HEADER: usize = 16;
/// The attribute with a text (NLMSGERR_ATTR_MSG).
const TEXT: u16 = 1;

/// An error number with the kernel's words.
#[derive(Debug)]
struct Refusal {
    source: io::Error,
    words: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.words, self.source)
    }
}

impl std::error::Error for Refusal {}

pub(super) fn of(error: &ErrorMessage, flags: u16) -> io::Error {
    let source = error.to_io();
    match words(&error.header, flags) {
        Some(words) => io::Error::new(source.kind(), Refusal { source, words }),
        None => source,
    }
}

/// The error number, with or without words.
pub(super) fn number(error: &io::Error) -> Option<i32> {
    let refusal = || error.get_ref()?.downcast_ref::<Refusal>()?.source.raw_os_error();
    error.raw_os_error().or_else(refusal)
}

fn words(rest: &[u8], flags: u16) -> Option<String> {
    if flags & WITH_ATTRIBUTES == 0 {
        return None;
    }
    let length = rest.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes) as usize)?;
    let skipped = if flags & CAPPED == 0 { length.next_multiple_of(4) } else { HEADER };
    let mut attributes = NlasIterator::new(rest.get(skipped..)?).filter_map(Result::ok);
    let text = attributes.find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == TEXT)?;
    let text = String::from_utf8_lossy(text.value()).trim_end_matches(['\0', '\n']).to_owned();
    (!text.is_empty()).then_some(text)
}
