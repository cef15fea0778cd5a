//! Numbers of tar headers: octal text, or base 256 when the first bit is set.

/// A number that cannot be negative. An empty field is 0.
pub(super) fn number(field: &[u8]) -> Result<u64, String> {
    u64::try_from(signed(field)?).map_err(|_| "that is negative".to_owned())
}

/// A number that may be negative: times before 1970.
pub(super) fn signed(field: &[u8]) -> Result<i64, String> {
    if field.first().is_some_and(|b| b & 0x80 != 0) {
        return base256(field);
    }
    let text = field.split(|b| *b == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| "that is not text".to_owned())?.trim();
    if text.is_empty() {
        return Ok(0);
    }
    i64::from_str_radix(text, 8).map_err(|_| format!("{text:?} that is not octal"))
}

/// Big endian, two's complement; the first bit is a mark and the second the sign.
fn base256(field: &[u8]) -> Result<i64, String> {
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (i, byte) in field.iter().enumerate() {
        let byte = if i == 0 { if negative { byte | 0x80 } else { byte & 0x7f } } else { *byte };
        value = value.checked_mul(256).ok_or("that is too big")? | i128::from(byte);
        if i64::try_from(value).is_err() {
            return Err("that is too big".into());
        }
    }
    i64::try_from(value).map_err(|_| "that is too big".into())
}

/// A device number's half.
pub(super) fn device(field: &[u8]) -> Result<u32, String> {
    let n = number(field).map_err(|e| format!("has a device number {e}"))?;
    u32::try_from(n).map_err(|_| format!("has the device number {n}, which is too big"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn octal_and_base_256() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]).unwrap(), 256);
        assert_eq!(signed(&[0xff; 12]).unwrap(), -1);
        assert_eq!(signed(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).unwrap(), -2);
        assert!(number(&[0xff; 12]).is_err());
        assert!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(number(b"9").is_err() && number(b"-1").is_err());
    }
}
