//! What a volume's driver and options mean: pure.
//!
//! The local driver knows `type`, `device` and `o` as mount(8) and docker take them, and of its own
//! - `size`: as the field of that name;
//! - `type` = `ext4` or `xfs` without a device: a file system in a file of the volume's own, as large as its size;
//! - `type` = `erofs` with `from` = a directory: a read-only image of what is in it;
//! - `encryption-key` = a file: the data in an ext4 image is encrypted by the kernel (fscrypt) with the key in it; with
//!   `encryption` = `luks` the whole image, ext4 or xfs, by cryptsetup(8).
//!
//! Without type and device, `o` may hold `size=`, `uid=`, `gid=` and `mode=`.

use std::collections::BTreeMap;

use crate::{Error, NewVolume, Result, Volume, record};

/// A mount to be applied by whoever runs the consumer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// "bind" or "overlay".
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
    Directory,
    /// Another directory of the host (`type=none,o=bind,device=/dir`).
    Bind { device: String, options: Vec<String> },
    /// Memory, shared by all consumers, empty when the last has gone.
    Tmpfs { options: Vec<String> },
    /// A file system in `disk.img` of the volume itself.
    Image { fstype: String, options: Vec<String>, from: Option<String>, key: Option<Key> },
    /// A file system that is mounted while the volume is in use.
    Filesystem { fstype: String, device: String, options: Vec<String> },
    /// The content of a container image, read-only (driver "image", options "image" and "pull").
    Content { reference: String, pull: Pull },
    /// A program outside knows.
    Plugin,
}

/// How an image is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// The file with the key.
    pub path: String,
    /// The whole image (LUKS), else the data in it (fscrypt).
    pub whole: bool,
}

/// When the registry is asked for an image: as it is first mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pull {
    Missing,
    Always,
    Never,
}

/// What was asked for, in order: sizes and owners that stood in options are in their fields.
pub(crate) fn settled(mut wanted: NewVolume) -> Result<NewVolume> {
    if wanted.driver.is_empty() {
        wanted.driver = record::LOCAL.into();
    }
    if wanted.driver != record::LOCAL {
        return Ok(wanted);
    }
    if let Some(size) = wanted.options.remove("size") {
        wanted.size_bytes = Some(bytes(&size)?);
    }
    if !wanted.options.contains_key("device") && wanted.options.get("type").is_none_or(|kind| kind == "none") {
        let words = flags(wanted.options.get("o"));
        let mut rest = Vec::new();
        for word in words {
            match word.split_once('=') {
                Some(("size", size)) => wanted.size_bytes = Some(bytes(size)?),
                Some(("uid", id)) => wanted.uid = Some(number(id, 10, "uid")?),
                Some(("gid", id)) => wanted.gid = Some(number(id, 10, "gid")?),
                Some(("mode", mode)) => wanted.mode = Some(number(mode, 8, "mode")?),
                _ => rest.push(word),
            }
        }
        if rest.is_empty() {
            wanted.options.remove("o");
            wanted.options.remove("type");
        } else {
            wanted.options.insert("o".into(), rest.join(","));
        }
    }
    if wanted.mode.is_some_and(|mode| mode > 0o7777) {
        return Err(invalid("mode", "", "at most 7777"));
    }
    Ok(wanted)
}

/// Reads a size such as "64m": binary units, as docker has them.
///
/// # Errors
/// No number, a sign, or an unknown unit.
pub fn bytes(text: &str) -> Result<u64> {
    let wrong = || invalid("size", text, "expected a number with b, k, m, g or t");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

fn number(text: &str, radix: u32, field: &'static str) -> Result<u32> {
    u32::from_str_radix(text, radix).map_err(|_| invalid(field, text, "expected a number"))
}

fn flags(text: Option<&String>) -> Vec<String> {
    let words = text.map(String::as_str).unwrap_or_default().split(',').map(str::trim);
    words.filter(|flag| !flag.is_empty()).map(Into::into).collect()
}

fn invalid(field: &'static str, value: &str, why: &str) -> Error {
    Error::Invalid { field, value: value.into(), why: why.into() }
}

/// Where the data of a volume is.
pub(crate) fn backing_of(volume: &Volume) -> Result<Backing> {
    let made = backing(&volume.driver, &volume.options)?;
    Ok(match (made, &volume.image) {
        // A directory whose limit needed a file system of its own.
        (Backing::Directory, Some(fstype)) => {
            Backing::Image { fstype: fstype.clone(), options: Vec::new(), from: None, key: None }
        }
        (made, _) => made,
    })
}

/// Reads driver and options.
pub(crate) fn backing(driver: &str, options: &BTreeMap<String, String>) -> Result<Backing> {
    match driver {
        record::LOCAL => local(options),
        "image" => content(options),
        _ => Ok(Backing::Plugin),
    }
}

fn content(options: &BTreeMap<String, String>) -> Result<Backing> {
    if let Some(unknown) = options.keys().find(|key| !["image", "pull"].contains(&key.as_str())) {
        return Err(invalid("option", unknown, "the image driver knows image and pull"));
    }
    let reference = options.get("image").filter(|text| !text.is_empty());
    let reference = reference.ok_or_else(|| invalid("option", "image", "the image driver needs it"))?.clone();
    let pull = match options.get("pull").map_or("missing", String::as_str) {
        "missing" => Pull::Missing,
        "always" => Pull::Always,
        "never" => Pull::Never,
        other => return Err(invalid("pull", other, "it is missing, always or never")),
    };
    Ok(Backing::Content { reference, pull })
}

fn local(options: &BTreeMap<String, String>) -> Result<Backing> {
    const KNOWN: [&str; 6] = ["type", "device", "o", "from", "encryption", "encryption-key"];
    if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(invalid(
            "option",
            unknown,
            "the local driver knows type, device, o, size, from, encryption and encryption-key",
        ));
    }
    let get = |key| options.get(key).map(|value: &String| value.trim()).filter(|value| !value.is_empty());
    let (fstype, device, from, key) = (get("type"), get("device"), get("from"), get("encryption-key"));
    let flags = flags(options.get("o"));
    let image = matches!(fstype, Some("ext4" | "xfs" | "erofs")) && device.is_none();
    let key = key_of(key, get("encryption"), fstype.filter(|_| image))?;
    if from.is_some() != (image && fstype == Some("erofs")) {
        return Err(invalid("option", "from", "it goes with type=erofs without a device, which needs it"));
    }
    let paths = [from, key.as_ref().map(|key| key.path.as_str())];
    if let Some(path) = paths.into_iter().flatten().find(|path| !path.starts_with('/')) {
        return Err(invalid("option", path, "expected an absolute path"));
    }
    if let (true, Some(fstype)) = (image, fstype) {
        return Ok(Backing::Image { fstype: fstype.into(), options: flags, from: from.map(Into::into), key });
    }
    let binds = flags.iter().any(|flag| flag == "bind" || flag == "rbind");
    match (fstype, device) {
        (None, None) if flags.is_empty() => Ok(Backing::Directory),
        (None | Some("none" | "bind"), Some(device)) if binds || fstype == Some("bind") => {
            if !device.starts_with('/') {
                return Err(invalid("device", device, "a bind mount takes an absolute path"));
            }
            let options = flags.into_iter().filter(|flag| flag != "bind" && flag != "rbind").collect();
            Ok(Backing::Bind { device: device.into(), options })
        }
        (Some("tmpfs"), _) => Ok(Backing::Tmpfs { options: flags }),
        (Some(fstype), Some(device)) if fstype != "none" => {
            if fstype.starts_with('-') || device.starts_with('-') {
                return Err(invalid("device", device, "it looks like a flag"));
            }
            Ok(Backing::Filesystem { fstype: fstype.into(), device: device.into(), options: flags })
        }
        (None | Some("none"), _) => Err(invalid("option", "type", "o and device need a type (or o=bind)")),
        (Some(fstype), None) => Err(invalid("device", "", &format!("type {fstype} needs a device"))),
        (Some(fstype), Some(_)) => Err(invalid("option", fstype, "type cannot be used")),
    }
}

/// `image`: the type of a file system in a file.
fn key_of(path: Option<&str>, how: Option<&str>, image: Option<&str>) -> Result<Option<Key>> {
    let Some(path) = path else {
        let lonely = how.map_or(Ok(()), |how| Err(invalid("encryption", how, "it needs encryption-key")));
        return lonely.map(|()| None);
    };
    let whole = match how {
        None | Some("fscrypt") => false,
        Some("luks") => true,
        Some(other) => return Err(invalid("encryption", other, "it is fscrypt or luks")),
    };
    match image {
        Some("ext4") => {}
        Some("xfs") if whole => {}
        _ => return Err(invalid("option", "encryption-key", "it goes with type=ext4 (luks: or xfs) without a device")),
    }
    Ok(Some(Key { path: path.into(), whole }))
}

impl Backing {
    /// Whether it is mounted on this host while in use.
    pub(crate) fn is_mounted(&self) -> bool {
        matches!(self, Self::Tmpfs { .. } | Self::Image { .. } | Self::Filesystem { .. } | Self::Content { .. })
    }

    /// Whether the data is the directory `_data` below the place that holds it, with room beside it; else that place.
    pub(crate) fn has_home(&self) -> bool {
        match self {
            Self::Directory | Self::Tmpfs { .. } => true,
            Self::Image { from, .. } => from.is_none(),
            _ => false,
        }
    }

    /// Options of the volume that hold for each mount of it.
    pub(crate) fn bind_options(&self) -> &[String] {
        match self {
            Self::Bind { options, .. } => options,
            _ => &[],
        }
    }

    /// What the consumers see cannot be written.
    pub(crate) fn is_read_only(&self) -> bool {
        match self {
            Self::Image { options, from, .. } => from.is_some() || options.iter().any(|word| word == "ro"),
            Self::Bind { options, .. } | Self::Filesystem { options, .. } | Self::Tmpfs { options } => {
                options.iter().any(|word| word == "ro")
            }
            Self::Content { .. } => true,
            Self::Directory | Self::Plugin => false,
        }
    }
}

/// The device and options of a network file system with the server's address in numbers: the kernel resolves no names. A
/// device without a server, as docker's users write it (`:/dir` and `addr=`), gets it from the options: mount.nfs(8) asks for one.
pub(crate) fn with_address(
    fstype: &str,
    device: &str,
    options: &[String],
    resolve: impl Fn(&str) -> Result<String>,
) -> Result<(String, Vec<String>)> {
    let nfs = matches!(fstype, "nfs" | "nfs4");
    if !nfs && !matches!(fstype, "cifs" | "smb3") {
        return Ok((device.into(), options.to_vec()));
    }
    let (mut out, mut address) = (Vec::new(), None);
    for word in options {
        match word.split_once('=') {
            Some((key @ ("addr" | "ip"), host)) => {
                let found = address.insert(resolve(host)?);
                out.push(format!("{key}={found}"));
            }
            _ => out.push(word.clone()),
        }
    }
    let host = if nfs {
        // An IPv6 address stands in brackets.
        device.rsplit_once(":/").map(|(host, _)| host.trim_matches(['[', ']']))
    } else {
        device.strip_prefix("//").and_then(|rest| rest.split('/').next())
    };
    let host = host.filter(|host| !host.is_empty());
    if let (None, Some(host)) = (&address, host) {
        out.push(format!("{}={}", if nfs { "addr" } else { "ip" }, resolve(host)?));
    }
    let device = match address {
        Some(server) if nfs && device.starts_with(":/") && server.contains(':') => format!("[{server}]{device}"),
        Some(server) if nfs && device.starts_with(":/") => format!("{server}{device}"),
        _ => device.into(),
    };
    Ok((device, out))
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
        assert_eq!(local(&map(&[])).unwrap(), Backing::Directory);
        assert_eq!(
            local(&map(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")])).unwrap(),
            Backing::Bind { device: "/srv".into(), options: vec!["ro".into()] }
        );
        assert_eq!(
            local(&map(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=5")])).unwrap(),
            Backing::Tmpfs { options: vec!["size=1m".into(), "uid=5".into()] }
        );
        assert!(matches!(
            local(&map(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=10.0.0.1")])).unwrap(),
            Backing::Filesystem { fstype, .. } if fstype == "nfs"
        ));
        assert!(matches!(local(&map(&[("type", "ext4")])).unwrap(), Backing::Image { .. }));
        assert!(matches!(local(&map(&[("type", "ext4"), ("device", "/dev/x")])).unwrap(), Backing::Filesystem { .. }));
        assert!(matches!(local(&map(&[("type", "erofs"), ("from", "/d")])).unwrap(), Backing::Image { .. }));
        let whole = map(&[("type", "xfs"), ("encryption-key", "/k"), ("encryption", "luks")]);
        assert!(matches!(local(&whole).unwrap(), Backing::Image { key: Some(Key { whole: true, .. }), .. }));
        assert!(matches!(backing("image", &map(&[("image", "busybox")])).unwrap(), Backing::Content { .. }));
    }

    #[test]
    fn refused() {
        for bad in [
            map(&[("nope", "1g")]),
            map(&[("o", "bind")]),
            map(&[("type", "none"), ("device", "relative"), ("o", "bind")]),
            map(&[("type", "nfs")]),
            map(&[("device", "/dev/sdb")]),
            map(&[("type", "erofs")]),
            map(&[("type", "erofs"), ("from", "relative")]),
            map(&[("type", "xfs"), ("encryption-key", "/k")]),
            map(&[("type", "erofs"), ("from", "/d"), ("encryption-key", "/k"), ("encryption", "luks")]),
            map(&[("type", "ext4"), ("encryption", "luks")]),
            map(&[("type", "ext4"), ("encryption-key", "/k"), ("encryption", "rot13")]),
            map(&[("type", "ext4"), ("device", "--bind")]),
        ] {
            assert!(local(&bad).is_err(), "{bad:?}");
        }
        assert!(backing("image", &map(&[])).is_err());
        assert!(backing("image", &map(&[("image", "a"), ("pull", "now")])).is_err());
    }

    #[test]
    fn what_stood_in_options() {
        let wanted = |options| settled(NewVolume { options: map(options), ..Default::default() });
        let new = wanted(&[("o", "size=10m,uid=5,gid=6,mode=1770"), ("type", "none")]).unwrap();
        assert_eq!((new.size_bytes, new.uid, new.gid, new.mode), (Some(10 << 20), Some(5), Some(6), Some(0o1770)));
        assert!(new.options.is_empty());
        assert_eq!(wanted(&[("size", "1g")]).unwrap().size_bytes, Some(1 << 30));
        assert!(wanted(&[("size", "-1g")]).is_err() && wanted(&[("size", "0")]).is_err());
        assert!(wanted(&[("o", "mode=77777")]).is_err() && wanted(&[("size", "99999999999t")]).is_err());
        assert_eq!(wanted(&[("type", "tmpfs"), ("o", "size=1m")]).unwrap().size_bytes, None);
    }

    #[test]
    fn names_of_servers() {
        let told = |fstype, device, options: &[&str]| {
            let options: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
            let (device, options) = with_address(fstype, device, &options, |host| Ok(format!("<{host}>"))).unwrap();
            format!("{device} {}", options.join(","))
        };
        assert_eq!(told("nfs", ":/x", &["addr=nas", "rw"]), "<nas>:/x addr=<nas>,rw");
        assert_eq!(told("nfs", ":/x", &["addr=fe80::1"]), "[<fe80::1>]:/x addr=<fe80::1>");
        assert_eq!(told("nfs4", "nas:/x", &["rw"]), "nas:/x rw,addr=<nas>");
        assert_eq!(told("nfs4", "[fe80::1]:/x", &[]), "[fe80::1]:/x addr=<fe80::1>");
        assert_eq!(told("cifs", "//nas/share", &["user=a"]), "//nas/share user=a,ip=<nas>");
        assert_eq!(told("ext4", "/dev/a:/b", &["ro"]), "/dev/a:/b ro");
    }
}
