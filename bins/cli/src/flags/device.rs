//! `--device host[:container][:rwm]`.

use anyhow::bail;

/// As "host:container:permissions".
pub fn device(text: &str) -> anyhow::Result<String> {
    let permissions = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (host, container, mode) = match text.split(':').collect::<Vec<_>>()[..] {
        [host] => (host, host, "rwm"),
        [host, mode] if permissions(mode) => (host, host, mode),
        [host, container] => (host, container, "rwm"),
        [host, container, mode] => (host, container, mode),
        _ => ("", "", ""),
    };
    if !host.starts_with('/') || !container.starts_with('/') || !permissions(mode) {
        bail!("invalid device {text:?}: expected HOST_PATH[:CONTAINER_PATH][:rwm]");
    }
    Ok(format!("{host}:{container}:{mode}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn devices() {
        for (text, want) in [
            ("/dev/fuse", "/dev/fuse:/dev/fuse:rwm"),
            ("/dev/fuse:r", "/dev/fuse:/dev/fuse:r"),
            ("/dev/a:/dev/b", "/dev/a:/dev/b:rwm"),
            ("/dev/a:/dev/b:rw", "/dev/a:/dev/b:rw"),
        ] {
            assert_eq!(device(text).unwrap(), want, "{text}");
        }
        for bad in ["", "fuse", "/a:/b:x", "/a:/b:r:c"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
