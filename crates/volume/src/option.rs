//! What the options of the local driver mean: pure.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Error, Result};

/// A mount to be applied by whoever runs the consumer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// "bind", "tmpfs", "nfs", ...
    pub fstype: String,
    /// Host path for "bind", else what the file system calls its device.
    pub source: String,
    /// Where the consumer wants it.
    pub target: String,
    /// In the words of mount(8).
    pub options: Vec<String>,
}

/// Where a volume's data comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backing {
    /// `_data` of the volume itself.
    Own,
    /// Another directory of the host (`type=none,o=bind,device=/dir`).
    Bind { device: String, options: Vec<String> },
    /// A file system that is mounted for each consumer (tmpfs, nfs, ext4, ...).
    Filesystem { fstype: String, device: String, options: Vec<String> },
}

/// Reads `type`, `device` and `o`, as docker's local driver has them.
pub(crate) fn backing(options: &BTreeMap<String, String>) -> Result<Backing> {
    let invalid = |field, value: &str, why: &str| Error::Invalid { field, value: value.into(), why: why.into() };
    if let Some(unknown) = options.keys().find(|key| !matches!(key.as_str(), "type" | "device" | "o")) {
        return Err(invalid("option", unknown, "the local driver knows type, device and o"));
    }
    let get = |key| options.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
    let (fstype, device) = (get("type"), get("device"));
    let flags: Vec<String> = get("o")
        .map(|text| text.split(',').map(str::trim).filter(|flag| !flag.is_empty()).map(Into::into).collect())
        .unwrap_or_default();
    let binds = flags.iter().any(|flag| flag == "bind" || flag == "rbind");
    match (fstype, device) {
        (None, None) if flags.is_empty() => Ok(Backing::Own),
        (None | Some("none" | "bind"), Some(device)) if binds || fstype == Some("bind") => {
            if !device.starts_with('/') {
                return Err(invalid("device", device, "a bind mount takes an absolute path"));
            }
            let options = flags.into_iter().filter(|flag| flag != "bind" && flag != "rbind").collect();
            Ok(Backing::Bind { device: device.into(), options })
        }
        (Some("tmpfs"), device) => {
            Ok(Backing::Filesystem { fstype: "tmpfs".into(), device: device.unwrap_or("tmpfs").into(), options: flags })
        }
        (Some(fstype), Some(device)) if fstype != "none" => {
            Ok(Backing::Filesystem { fstype: fstype.into(), device: device.into(), options: flags })
        }
        (None | Some("none"), _) => Err(invalid("option", "type", "o and device need a type (or o=bind)")),
        (Some(fstype), None) => Err(invalid("device", "", &format!("type {fstype} needs a device"))),
        (Some(fstype), Some(_)) => Err(invalid("option", fstype, "type cannot be used")),
    }
}

/// The mount that shows a backing at a target. `own` is the directory to bind when the data is in one.
pub(crate) fn mount(backing: &Backing, own: &Path, target: &str, read_only: bool) -> Mount {
    let access = if read_only { "ro" } else { "rw" };
    let (fstype, source, mut options) = match backing {
        Backing::Own => ("bind".to_owned(), own.display().to_string(), vec!["rbind".to_owned()]),
        Backing::Bind { options, .. } => {
            let all = std::iter::once("rbind".to_owned()).chain(options.iter().cloned()).collect();
            ("bind".to_owned(), own.display().to_string(), all)
        }
        Backing::Filesystem { fstype, device, options } => (fstype.clone(), device.clone(), options.clone()),
    };
    // "ro" of the volume itself stays; a reader never makes it writable.
    if !options.iter().any(|option| option == "ro") {
        options.retain(|option| option != "rw");
        options.push(access.into());
    }
    Mount { fstype, source, target: target.into(), options }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn backings() {
        assert_eq!(backing(&map(&[])).unwrap(), Backing::Own);
        assert_eq!(
            backing(&map(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")])).unwrap(),
            Backing::Bind { device: "/srv".into(), options: vec!["ro".into()] }
        );
        assert_eq!(
            backing(&map(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=5")])).unwrap(),
            Backing::Filesystem {
                fstype: "tmpfs".into(),
                device: "tmpfs".into(),
                options: vec!["size=1m".into(), "uid=5".into()]
            }
        );
        assert!(matches!(
            backing(&map(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=10.0.0.1")])).unwrap(),
            Backing::Filesystem { fstype, .. } if fstype == "nfs"
        ));
    }

    #[test]
    fn refused() {
        for bad in [
            map(&[("size", "1g")]),
            map(&[("o", "bind")]),
            map(&[("type", "none"), ("device", "relative"), ("o", "bind")]),
            map(&[("type", "nfs")]),
            map(&[("device", "/dev/sdb")]),
        ] {
            assert!(backing(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mounts() {
        let own = mount(&Backing::Own, Path::new("/v/_data"), "/data", true);
        assert_eq!(own.options, ["rbind", "ro"]);
        assert_eq!((own.fstype.as_str(), own.source.as_str(), own.target.as_str()), ("bind", "/v/_data", "/data"));
        let read_only = Backing::Bind { device: "/srv".into(), options: vec!["ro".into()] };
        assert_eq!(mount(&read_only, Path::new("/srv"), "/d", false).options, ["rbind", "ro"]);
        let tmpfs =
            Backing::Filesystem { fstype: "tmpfs".into(), device: "tmpfs".into(), options: vec!["size=1m".into()] };
        assert_eq!(mount(&tmpfs, Path::new("/v"), "/d", false).options, ["size=1m", "rw"]);
    }
}
