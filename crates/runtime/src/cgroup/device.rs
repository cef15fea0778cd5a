//! Device rules: which nodes the processes of a container may make, read and write. Pure.
//!
//! The rules are the configuration's in order, then what every container needs. The last rule that covers an access
//! decides it; what none covers is denied (runtime-spec config-linux.md, "Allowed Device list").

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::{Error, Result};

/// May make the node (`BPF_DEVCG_ACC_MKNOD`).
pub const MAKE: u8 = 1;
/// May read.
pub const READ: u8 = 2;
/// May write.
pub const WRITE: u8 = 4;
/// All of it.
pub const ALL: u8 = MAKE | READ | WRITE;

/// The kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Block.
    Block,
    /// Character.
    Char,
}

/// One rule; `None` stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether it permits.
    pub allow: bool,
    /// Block or character.
    pub kind: Option<Kind>,
    /// Device number.
    pub major: Option<u32>,
    /// Device number.
    pub minor: Option<u32>,
    /// Bits of [`ALL`] it is about.
    pub access: u8,
}

impl Rule {
    const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Self {
        Self { allow: true, kind: Some(kind), major, minor, access }
    }

    /// Whether it is about every device.
    #[must_use]
    pub fn is_total(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }
}

/// Devices every container may use (runc's list): making any node, the pseudo devices, terminals.
const ALWAYS: [Rule; 11] = [
    Rule::allow(Kind::Char, None, None, MAKE),
    Rule::allow(Kind::Block, None, None, MAKE),
    Rule::allow(Kind::Char, Some(1), Some(3), ALL),
    Rule::allow(Kind::Char, Some(1), Some(5), ALL),
    Rule::allow(Kind::Char, Some(1), Some(7), ALL),
    Rule::allow(Kind::Char, Some(1), Some(8), ALL),
    Rule::allow(Kind::Char, Some(1), Some(9), ALL),
    Rule::allow(Kind::Char, Some(5), Some(0), ALL),
    Rule::allow(Kind::Char, Some(5), Some(1), ALL),
    Rule::allow(Kind::Char, Some(5), Some(2), ALL),
    Rule::allow(Kind::Char, Some(136), None, ALL),
];

/// The whole list for a container: deny all, the configuration's, the ones above.
///
/// # Errors
/// [`Error::Refused`] for a rule that makes no sense.
pub fn rules(configured: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = vec![Rule { allow: false, kind: None, major: None, minor: None, access: ALL }];
    for entry in configured {
        rules.extend(rule(entry)?);
    }
    // What comes before a rule about everything says nothing any more.
    let start = rules.iter().rposition(Rule::is_total).unwrap_or(0);
    rules.drain(..start);
    rules.extend(ALWAYS);
    Ok(rules)
}

fn rule(entry: &LinuxDeviceCgroup) -> Result<Option<Rule>> {
    let (major, minor) = (number(entry.major())?, number(entry.minor())?);
    let kind = match entry.typ() {
        None | Some(LinuxDeviceType::A) if major.is_none() && minor.is_none() => None,
        None | Some(LinuxDeviceType::A) => return Err(Error::Refused("a device rule of type a has a number".into())),
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
        // A fifo is no device.
        Some(LinuxDeviceType::P) => return Ok(None),
    };
    // For everything at once the kernel's v1 controller takes no access either.
    let access = if kind.is_none() { ALL } else { access(entry.access().as_deref().unwrap_or(""))? };
    Ok(Some(Rule { allow: entry.allow(), kind, major, minor, access }))
}

/// Negative means any, as in runc.
fn number(n: Option<i64>) -> Result<Option<u32>> {
    n.filter(|n| *n >= 0)
        .map(|n| i32::try_from(n).map(i32::cast_unsigned))
        .transpose()
        .map_err(|_| Error::Refused(format!("device number {} is out of range", n.unwrap_or(0))))
}

fn access(text: &str) -> Result<u8> {
    let bit = |c| match c {
        'm' => Ok(MAKE),
        'r' => Ok(READ),
        'w' => Ok(WRITE),
        // In some configurations; it has never meant anything.
        'a' => Ok(0),
        _ => Err(Error::Refused(format!("device access {text:?} is not of r, w, m"))),
    };
    let bits = text.chars().try_fold(0, |all, c| bit(c).map(|b| all | b))?;
    Ok(if bits == 0 { ALL } else { bits })
}

/// The rule as the v1 controller wants it: the file, and the line to write.
#[must_use]
pub fn v1_line(rule: &Rule) -> (&'static str, String) {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let Some(kind) = rule.kind else { return (file, "a".into()) };
    let kind = if kind == Kind::Block { 'b' } else { 'c' };
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let letters: String =
        [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')].iter().filter(|(b, _)| rule.access & b != 0).map(|(_, c)| c).collect();
    (file, format!("{kind} {}:{} {letters}", number(rule.major), number(rule.minor)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(value: serde_json::Value) -> Result<Vec<Rule>> {
        rules(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(value).unwrap())
    }

    #[test]
    fn everything_is_denied_first() {
        let lines: Vec<_> = of(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 8, "minor": -1}
        ]))
        .unwrap()
        .iter()
        .map(v1_line)
        .collect();
        assert_eq!(lines[0], ("devices.deny", "a".to_owned()));
        assert_eq!(lines[1], ("devices.allow", "c 10:229 rw".to_owned()));
        assert_eq!(lines[2], ("devices.allow", "b 8:* rwm".to_owned()));
        assert_eq!(lines.len(), 3 + ALWAYS.len());
    }

    #[test]
    fn a_rule_about_everything_ends_what_was_before() {
        let all = of(json!([{"allow": true, "type": "c", "major": 1, "minor": 2}, {"allow": true}])).unwrap();
        assert_eq!(v1_line(&all[0]), ("devices.allow", "a".to_owned()));
        assert_eq!(all.len(), 1 + ALWAYS.len());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(of(json!([{"allow": true, "type": "c", "access": "x"}])).is_err());
        assert!(of(json!([{"allow": true, "major": 1}])).is_err());
        assert!(of(json!([{"allow": true, "type": "c", "major": 1_i64 << 40}])).is_err());
    }
}
