//! PAX extended headers (POSIX pax, "pax Header Block") with star's and GNU's vendor keys.

const XATTR: &str = "SCHILY.xattr.";
/// Of one entry; no file system comes near.
const MAX_XATTRS: usize = 1024;

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<Sparse>,
}

/// GNU's sparse files in the PAX format.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub major: u64,
    pub minor: u64,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Formats 0.0 and 0.1: offset, length, ...
    pub map: Option<Vec<u64>>,
}

impl Extended {
    /// Takes the records of one header: `<length> <key>=<value>\n`, the length counting itself.
    pub(super) fn pax(&mut self, mut rest: &[u8]) -> Result<(), String> {
        while !rest.is_empty() && rest[0] != 0 {
            let space = rest.iter().take(20).position(|b| *b == b' ').ok_or("a PAX record without a length")?;
            let length = text(&rest[..space])?.parse::<usize>().map_err(|_| "a PAX record without a length")?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err("a PAX record of a wrong length".into());
            }
            let record = &rest[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or("a PAX record without '='")?;
            self.record(&record[..equals], &record[equals + 1..])?;
            rest = &rest[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        // An empty value takes the key back.
        let given = !value.is_empty();
        match text(key)? {
            "path" => self.path = given.then(|| value.to_vec()),
            "linkpath" => self.link = given.then(|| value.to_vec()),
            "size" => self.size = given.then(|| decimal(value)).transpose()?,
            "uid" => self.uid = given.then(|| decimal(value)).transpose()?,
            "gid" => self.gid = given.then(|| decimal(value)).transpose()?,
            "mtime" => self.mtime = given.then(|| time(value)).transpose()?,
            key if key.starts_with(XATTR) => {
                let name = &key.as_bytes()[XATTR.len()..];
                self.xattrs.retain(|(known, _)| known != name);
                if self.xattrs.len() >= MAX_XATTRS {
                    return Err(format!("more than {MAX_XATTRS} extended attributes of one file"));
                }
                self.xattrs.push((name.to_vec(), value.to_vec()));
            }
            key if key.starts_with("GNU.sparse.") => self.sparse(key, value)?,
            _ => {}
        }
        Ok(())
    }

    fn sparse(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let sparse = self.sparse.get_or_insert_default();
        match key {
            "GNU.sparse.major" => sparse.major = decimal(value)?,
            "GNU.sparse.minor" => sparse.minor = decimal(value)?,
            "GNU.sparse.name" => sparse.name = Some(value.to_vec()),
            "GNU.sparse.realsize" | "GNU.sparse.size" => sparse.real_size = Some(decimal(value)?),
            "GNU.sparse.map" => {
                let numbers = value.split(|b| *b == b',').map(decimal).collect::<Result<_, _>>()?;
                sparse.map = Some(numbers);
            }
            // Format 0.0 says each extent with a record of its own.
            "GNU.sparse.offset" | "GNU.sparse.numbytes" => sparse.map.get_or_insert_default().push(decimal(value)?),
            "GNU.sparse.numblocks" => {}
            _ => return Err(format!("a sparse file in an unknown format ({key})")),
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a PAX key that is not text".into())
}

pub(super) fn decimal(value: &[u8]) -> Result<u64, String> {
    let wrong = || format!("the PAX number {:?}", String::from_utf8_lossy(value));
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|t| t.parse::<i64>().ok());
    number.map(i64::unsigned_abs).ok_or_else(wrong)
}

/// `[-]<seconds>[.<fraction>]`, rounded towards the past as the file systems do.
fn time(value: &[u8]) -> Result<(i64, u32), String> {
    let wrong = || format!("the PAX time {:?}", String::from_utf8_lossy(value));
    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = whole.parse::<i64>().map_err(|_| wrong())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos = digits.parse::<u32>().map_err(|_| wrong())?;
    Ok(match (whole.starts_with('-'), nanos) {
        (true, 1..) => (seconds.checked_sub(1).ok_or_else(wrong)?, 1_000_000_000 - nanos),
        _ => (seconds, nanos),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records() {
        let mut e = Extended::default();
        e.pax(b"9 path=a\n11 uid=123\n27 SCHILY.xattr.user.x=a=b\n19 mtime=-1.500000\n").unwrap();
        assert_eq!(e.path.as_deref(), Some(&b"a"[..]));
        assert_eq!(e.uid, Some(123));
        assert_eq!(e.xattrs, [(b"user.x".to_vec(), b"a=b".to_vec())]);
        assert_eq!(e.mtime, Some((-2, 500_000_000)));
        for bad in [&b"x"[..], b"99 a=b\n", b"5 ab\n", b"0 \n", b"8 uid=-\n", b"3 \n\n"] {
            assert!(Extended::default().pax(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
