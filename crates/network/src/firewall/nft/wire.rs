//! Changes of elements straight over netlink: the transaction that an `nft` process would send, without the
//! milliseconds that the process takes to come up.
//!
//! The messages are made by netlink-bindings from the kernel's own description (Documentation/netlink/specs/nftables.yaml).

use std::io;

use netlink_bindings::nftables::{Chained, PushDataAttrs, PushSetelemListAttrs, Request};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};

use super::{DECLARATIONS, netfilter};
use crate::firewall::element::Element;
use crate::firewall::elements::{Elements, family};

/// Elements of one message: the length of an attribute has 16 bits.
const PER_MESSAGE: usize = 256;
/// NFT_SET_ELEM_INTERVAL_END of linux/netfilter/nf_tables.h.
pub(super) const INTERVAL_END: u32 = 1;
/// NFTA_SET_ELEM_KEY_END of linux/netfilter/nf_tables.h. The crate's `nested_key_end` writes 9: the description leaves
/// out the padding attribute before it (netlink-bindings 0.3.5, Linux 7.3).
const KEY_END: u16 = 10;
/// Number of the first message.
const FIRST: u32 = 1;

/// A transaction.
struct Batch {
    messages: Chained<'static>,
    last: u32,
}

impl Batch {
    fn begin() -> Self {
        let mut messages = Chained::new(FIRST);
        messages.request().op_batch_begin_do(&netfilter::whole());
        Self { messages, last: FIRST }
    }

    fn request(&mut self) -> Request<'_> {
        self.last += 1;
        self.messages.request()
    }

    fn commit(mut self, removes: bool) -> io::Result<()> {
        self.messages.request().op_batch_end_do(&netfilter::whole());
        netfilter::commit(self.messages.finalize().buf(), self.last, removes)
    }
}

/// Takes elements out and puts others in: all of it or nothing.
///
/// # Errors
/// The kernel's: `ENOENT` when the table, a set or an element to be removed is not there.
pub(super) fn change(table: &str, out: &Elements, new: &Elements) -> io::Result<()> {
    let mut batch = Batch::begin();
    for (set, elements) in parts(out) {
        let header = netfilter::header(family(set));
        fill(batch.request().op_delsetelem_do(&header).encode(), table, set, &elements);
    }
    for (set, elements) in parts(new) {
        let header = netfilter::header(family(set));
        fill(batch.request().set_create().op_newsetelem_do(&header).encode(), table, set, &elements);
    }
    batch.commit(!out.sets().is_empty())
}

/// Takes tables of these families away, with all that is in them.
///
/// # Errors
/// The kernel's: `ENOENT` when one is not there.
pub(super) fn remove_tables(table: &str, families: &[&str]) -> io::Result<()> {
    if families.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::begin();
    for family in families {
        let header = netfilter::header(family);
        batch.request().op_deltable_do(&header).encode().push_name_bytes(table.as_bytes());
    }
    batch.commit(true)
}

fn parts(elements: &Elements) -> Vec<(&'static str, Vec<&Element>)> {
    let of_set = |set| {
        let all: Vec<&Element> = elements.of(set).collect();
        all.chunks(PER_MESSAGE).map(|part| (set, part.to_vec())).collect::<Vec<_>>()
    };
    elements.sets().into_iter().flat_map(of_set).collect()
}

fn fill<P: Pusher>(message: PushSetelemListAttrs<P>, table: &str, set: &str, elements: &[&Element]) {
    let mut list = message.push_table_bytes(table.as_bytes()).push_set_bytes(set.as_bytes()).nested_elements();
    for element in elements {
        for item in items(element) {
            let mut one = list.nested_elem();
            one = one.nested_key().push_value(&item.key).end_nested();
            if let Some(end) = item.key_end {
                let at = push_nested_header(one.as_vec_mut(), KEY_END);
                PushDataAttrs::new(one.as_vec_mut()).push_value(&end);
                finalize_nested_header(one.as_vec_mut(), at);
            }
            if item.is_end {
                one = one.push_flags(&INTERVAL_END.to_be_bytes());
            } else if !element.value.is_empty() {
                one = one.nested_data().push_value(&element.data()).end_nested();
            }
            list = one.end_nested();
        }
    }
}

/// An element as the kernel takes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) key: Vec<u8>,
    /// The other end of a concatenated interval.
    pub(super) key_end: Option<Vec<u8>>,
    /// It is the end, the first key outside, of a simple interval.
    pub(super) is_end: bool,
}

/// Simple intervals are two items, their beginning and the first key behind them; all others are one.
pub(super) fn items(element: &Element) -> Vec<Item> {
    let [low, high] = element.keys();
    let start = Item { key: low, key_end: None, is_end: false };
    match element.key.as_slice() {
        _ if !has_intervals(element.set) => vec![start],
        [_] => {
            let end = after(high).map(|key| Item { key, key_end: None, is_end: true });
            std::iter::once(start).chain(end).collect()
        }
        _ => vec![Item { key_end: Some(high), ..start }],
    }
}

/// Those of the tables of host-first publishing all have.
fn has_intervals(set: &str) -> bool {
    let declared = DECLARATIONS.lines().find(|line| line.split_whitespace().nth(1) == Some(set));
    declared.is_none_or(|line| line.contains("flags interval"))
}

/// The next number; none after the highest.
fn after(mut number: Vec<u8>) -> Option<Vec<u8>> {
    for byte in number.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::firewall::element::Field;

    fn keys(set: &'static str, key: Vec<Field>) -> Vec<(Vec<u8>, Option<Vec<u8>>, bool)> {
        let all = items(&Element { set, key, value: Vec::new() });
        all.into_iter().map(|item| (item.key, item.key_end, item.is_end)).collect()
    }

    #[test]
    fn intervals_are_written_as_their_kind_of_set_wants_them() {
        let subnet = |text: &str| Field::Subnet(text.parse().unwrap());
        let link = || Field::Link("br0".into());
        assert_eq!(
            keys("masquerade4", vec![subnet("10.1.255.0/24")]),
            [(vec![10, 1, 255, 0], None, false), (vec![10, 2, 0, 0], None, true)]
        );
        assert_eq!(keys("masquerade4", vec![subnet("255.255.255.0/24")]), [(vec![255, 255, 255, 0], None, false)]);
        for set in ["bridges", "internal", "open", "strict"] {
            assert_eq!(keys(set, vec![link()]).len(), 1, "{set}");
        }
        assert_eq!(keys("same", vec![link(), link()])[0].1, None);
        let address = || Field::Address("10.1.0.1".parse().unwrap());
        assert_eq!((keys("names4", vec![address()]).len(), keys("first_names4", vec![address()]).len()), (1, 2));
        let own = keys("own4", vec![link(), subnet("10.1.0.0/24")]);
        assert!(own.len() == 1 && own[0].1.as_ref().unwrap().ends_with(&[10, 1, 0, 255]), "{own:?}");
    }
}
