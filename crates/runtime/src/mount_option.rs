//! The options of one mount: fstab words to what the kernel's mount calls take. Pure.
//!
//! The words are those of runtime-spec "Linux mount options"; a bind mount's attributes follow what runc does: naming one
//! replaces all but the access time, naming none inherits all.

use oci_spec::runtime::Mount;
use rustix::mount::MountFlags;

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub(crate) const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
pub(crate) const ATIME_MASK: u64 = 0x70;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;
/// Attributes that have the same bit in `MS_*` of mount(2) and `ST_*` of statvfs(3).
pub(crate) const FLAG_BITS: u64 = RDONLY | NOSUID | NODEV | NOEXEC;
/// Not an attribute: the access time is set, and to the default.
const RELATIME: u64 = 1 << 40;

const TIMES: u64 = NOATIME | STRICTATIME | RELATIME | NODIRATIME;
const FLAGS: u64 = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
/// What a mount that came from another user namespace keeps (mount_namespaces(7), "locked").
const LOCKABLE: u64 = RDONLY | NOSUID | NODEV | NOEXEC;

/// `(word, attribute, set it)`.
const WORDS: [(&str, u64, bool); 18] = [
    ("ro", RDONLY, true),
    ("rw", RDONLY, false),
    ("nosuid", NOSUID, true),
    ("suid", NOSUID, false),
    ("nodev", NODEV, true),
    ("dev", NODEV, false),
    ("noexec", NOEXEC, true),
    ("exec", NOEXEC, false),
    ("nosymfollow", NOSYMFOLLOW, true),
    ("symfollow", NOSYMFOLLOW, false),
    ("noatime", NOATIME, true),
    ("atime", NOATIME, false),
    ("nodiratime", NODIRATIME, true),
    ("diratime", NODIRATIME, false),
    ("relatime", RELATIME, true),
    ("norelatime", RELATIME, false),
    ("strictatime", STRICTATIME, true),
    ("nostrictatime", STRICTATIME, false),
];

/// mount(2)'s `MS_*` of propagation by word.
const PROPAGATION: [(&str, u64); 4] =
    [("shared", 1 << 20), ("slave", 1 << 19), ("private", 1 << 18), ("unbindable", 1 << 17)];

/// Words of mount(8) without a meaning for the kernel, or which are how a file system is without them.
const IGNORED: [&str; 8] = ["defaults", "async", "nomand", "nolazytime", "loud", "silent", "norbind", ""];

/// Words with a meaning of their own, here or for every file system (fsconfig(2)).
const OTHERS: [&str; 10] =
    ["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap", "sync", "dirsync", "mand", "lazytime"];

/// Every word that is understood, for the features document.
pub(crate) fn words() -> Vec<String> {
    let plain = WORDS.iter().map(|(word, ..)| *word).chain(PROPAGATION.iter().map(|(word, _)| *word));
    let recursive = plain.clone().map(|word| format!("r{word}"));
    let others = OTHERS.iter().chain(&IGNORED).filter(|w| !w.is_empty() && **w != "norbind");
    let mut all: Vec<String> =
        plain.map(str::to_owned).chain(recursive).chain(others.map(|w| (*w).to_owned())).collect();
    all.sort();
    all
}

/// A change of attributes: `(set, clear)` of mount_setattr(2).
pub(crate) type Change = (u64, u64);

/// How a mount is to be made.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    set: u64,
    cleared: u64,
    recursive: Option<Change>,
    /// With all mounts below the source.
    pub rbind: bool,
    /// Changes what is mounted there already.
    pub remount: bool,
    /// Options of the file system itself.
    pub data: Vec<String>,
    /// `(MS_* propagation, recursive)`.
    pub propagation: Vec<(u64, bool)>,
    /// Fill a tmpfs with what lay under it.
    pub copy_up: bool,
    /// Map ids; `Some(true)`: also those of the mounts below.
    pub idmap: Option<bool>,
}

impl Options {
    /// Reads the options of a mount.
    pub(crate) fn of(mount: &Mount) -> Self {
        let mut options = Self::default();
        let mapped = |maps: &Option<Vec<_>>| maps.as_ref().is_some_and(|m| !m.is_empty());
        if mapped(mount.uid_mappings()) || mapped(mount.gid_mappings()) {
            options.idmap = Some(false);
        }
        for word in mount.options().iter().flatten() {
            options.read(word);
        }
        options
    }

    fn read(&mut self, word: &str) {
        if let Some((_, flag, set)) = WORDS.iter().find(|(name, ..)| *name == word) {
            self.name(*flag, *set);
        } else if let Some(propagation) = propagation(word) {
            self.propagation.push(propagation);
        } else if let Some((set, clear)) = recursive(word) {
            let (all_set, all_clear) = self.recursive.get_or_insert_default();
            // The later word wins.
            (*all_set, *all_clear) = ((*all_set & !clear) | set, (*all_clear & !set) | (clear & !set) | time_mask(set));
        } else {
            match word {
                "bind" => {}
                "rbind" => self.rbind = true,
                "remount" => self.remount = true,
                "tmpcopyup" => self.copy_up = true,
                "idmap" => self.idmap = Some(false),
                "ridmap" => self.idmap = Some(true),
                other if IGNORED.contains(&other) => {}
                other => self.data.push(other.to_owned()),
            }
        }
    }

    fn name(&mut self, flag: u64, set: bool) {
        if set {
            self.set |= flag;
            self.cleared &= !flag;
        } else {
            self.set &= !flag;
            self.cleared |= flag;
        }
    }

    /// The attributes of a new mount.
    pub(crate) fn fresh(&self) -> u64 {
        (self.set & FLAGS) | self.times().unwrap_or_default()
    }

    /// Whether the mount is to be read-only.
    pub(crate) fn readonly(&self) -> bool {
        self.set & RDONLY != 0
    }

    /// What a bind mount (or a remount) changes of its attributes. `None`: nothing.
    pub(crate) fn replaced(&self) -> Option<Change> {
        if self.set | self.cleared == 0 {
            return None;
        }
        let set = self.set & FLAGS;
        Some(match self.times() {
            Some(times) => (set | times, (FLAGS & !set) | ATIME_MASK | (NODIRATIME & !times)),
            None => (set, FLAGS & !set),
        })
    }

    /// The same where attributes are locked: those `existing` stay, unless one was to be lifted by name.
    pub(crate) fn replaced_locked(&self, existing: u64) -> Option<Change> {
        if self.cleared & existing & LOCKABLE != 0 {
            return None;
        }
        self.replaced().map(|(set, clear)| (set, clear & !(existing & LOCKABLE)))
    }

    /// Changes of the whole tree below.
    pub(crate) fn recursive(&self) -> Option<Change> {
        self.recursive
    }

    /// The access time attributes that are asked for. Strict wins over "no", as for mount(2).
    fn times(&self) -> Option<u64> {
        let named = self.set & TIMES;
        if named == 0 {
            return None;
        }
        let strict = named & STRICTATIME != 0;
        Some(named & !RELATIME & if strict { !NOATIME } else { !0 })
    }
}

/// Attributes as `MS_*` of mount(2).
pub(crate) fn remount_flags(attributes: u64) -> MountFlags {
    let same = MountFlags::from_bits_retain(u32::try_from(attributes & FLAG_BITS).unwrap_or_default());
    let time = match attributes & ATIME_MASK {
        NOATIME => MountFlags::NOATIME,
        STRICTATIME => MountFlags::STRICTATIME,
        _ => MountFlags::RELATIME,
    };
    let mut flags = same | time;
    flags.set(MountFlags::NODIRATIME, attributes & NODIRATIME != 0);
    // MS_NOSYMFOLLOW, Linux 5.10.
    flags.set(MountFlags::from_bits_retain(256), attributes & NOSYMFOLLOW != 0);
    flags
}

/// The flag of mount(2) that an option of the file system is there, not of the mount.
pub(crate) fn superblock_flag(option: &str) -> Option<MountFlags> {
    Some(match option {
        "sync" => MountFlags::SYNCHRONOUS,
        "dirsync" => MountFlags::DIRSYNC,
        "mand" => MountFlags::PERMIT_MANDATORY_FILE_LOCKING,
        "lazytime" => MountFlags::LAZYTIME,
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<(u64, bool)> {
    let one =
        |word: &str, recursive| PROPAGATION.iter().find(|(name, _)| *name == word).map(|(_, bits)| (*bits, recursive));
    one(word, false).or_else(|| one(word.strip_prefix('r')?, true))
}

/// A word with `r` before it applies to the whole tree (runtime-spec: `rro`, `rnosuid`, ...).
fn recursive(word: &str) -> Option<Change> {
    let (_, flag, set) = WORDS.iter().find(|(name, ..)| Some(*name) == word.strip_prefix('r'))?;
    Some(match (*flag, *set) {
        (RELATIME, _) | (NOATIME | STRICTATIME, false) => (0, ATIME_MASK),
        (time @ (NOATIME | STRICTATIME), true) => (time, ATIME_MASK),
        (other, true) => (other, 0),
        (other, false) => (0, other),
    })
}

/// The access time is one field: to set it, all of it has to be cleared.
fn time_mask(set: u64) -> u64 {
    if set & (NOATIME | STRICTATIME) != 0 { ATIME_MASK } else { 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(options: &[&str]) -> Options {
        Options::of(&serde_json::from_value(json!({"destination": "/x", "source": "s", "options": options})).unwrap())
    }

    #[test]
    fn flags_and_data() {
        let o = of(&["nosuid", "strictatime", "mode=755", "size=65536k", "tmpcopyup", "rw", "sync"]);
        assert_eq!(o.fresh(), 0x22);
        assert!(o.copy_up && !o.readonly());
        assert_eq!(o.data, ["mode=755", "size=65536k", "sync"]);
    }

    #[test]
    fn binds_replace_all_or_nothing() {
        assert_eq!(of(&["rbind", "rprivate"]).replaced(), None);
        assert_eq!(of(&["bind", "ro"]).replaced(), Some((0x1, FLAGS & !1)));
        assert_eq!(of(&["bind", "dev"]).replaced(), Some((0, FLAGS)));
        assert_eq!(of(&["bind", "atime"]).replaced(), Some((0, FLAGS)), "the access time stays");
        assert_eq!(of(&["bind", "nodiratime"]).replaced(), Some((0x80, FLAGS | 0x70)));
        assert_eq!(of(&["bind", "relatime"]).replaced(), Some((0, FLAGS | 0xf0)));
        assert_eq!(of(&["bind", "noatime", "atime"]).replaced(), Some((0, FLAGS)));
    }

    #[test]
    fn locked_ones_stay_unless_named() {
        let existing = RDONLY | NOEXEC | NOSYMFOLLOW;
        assert_eq!(of(&["bind", "rw"]).replaced_locked(existing), None);
        assert_eq!(of(&["bind", "dev"]).replaced_locked(existing), Some((0, FLAGS & !(RDONLY | NOEXEC))));
    }

    #[test]
    fn trees() {
        assert_eq!(of(&["rbind", "rro", "rnosuid"]).recursive(), Some((0x3, 0)));
        assert_eq!(of(&["rbind", "rro", "rrw"]).recursive(), Some((0, 0x1)));
        assert_eq!(of(&["rnoatime"]).recursive(), Some((0x10, 0x70)));
        assert_eq!(of(&["rnorelatime"]).recursive(), Some((0, 0x70)));
        assert_eq!(of(&["rdiratime"]).recursive(), Some((0, 0x80)));
        assert_eq!(of(&["rprivate", "shared"]).propagation, [(1 << 18, true), (1 << 20, false)]);
    }

    #[test]
    fn attributes_of_the_old_call() {
        assert_eq!(remount_flags(0), MountFlags::RELATIME);
        let (mixed, strict) = (RDONLY | NOEXEC | NOATIME | NODIRATIME, NOSYMFOLLOW | STRICTATIME);
        assert_eq!(remount_flags(mixed).bits(), 1 | 8 | 1024 | 2048);
        assert_eq!(remount_flags(strict).bits(), 256 | 1 << 24);
        assert_eq!(superblock_flag("sync").map(|f| f.bits()), Some(16));
        assert_eq!(superblock_flag("size=1"), None);
    }

    #[test]
    fn mappings_mean_idmap() {
        let maps = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        let mount =
            json!({"destination": "/x", "options": ["rbind", "ridmap"], "uidMappings": maps, "gidMappings": maps});
        assert_eq!(Options::of(&serde_json::from_value(mount).unwrap()).idmap, Some(true));
        assert_eq!(of(&["idmap"]).idmap, Some(false));
        assert_eq!(of(&[]).idmap, None);
    }
}
