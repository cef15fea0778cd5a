//! Who the container's user is, before it has a root file system: by /etc/passwd and /etc/group of its image's layers.
use crate::error::Error;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Read;

/// A longer file is no list of users.
const LONGEST: u64 = 1 << 20;

/// User and group of a container's user, as [`oci::user`] reads it. `layers`: lowest first.
///
/// # Errors
/// [`Error::Invalid`]: the image does not know the name.
pub fn ids(user: &str, layers: &[String]) -> Result<(u32, u32), Error> {
    let (passwd, group) = (read(layers, "passwd"), read(layers, "group"));
    let found = oci::user::resolve(user, &[], &passwd, &group);
    found.map(|user| (user.uid, user.gid)).map_err(|error| Error::invalid("user", user, error.to_string()))
}

/// A file of /etc in the highest layer that has it. No link is followed: it would lead out of the layer.
fn read(layers: &[String], name: &str) -> String {
    let open = |layer: &String| {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layer = rustix::fs::open(layer.as_str(), directory, Mode::empty())?;
        let etc = rustix::fs::openat(layer, "etc", directory | OFlags::NOFOLLOW, Mode::empty())?;
        let plain = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(etc, name, plain, Mode::empty())
    };
    for layer in layers.iter().rev() {
        match open(layer) {
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => break,
            Ok(file) => {
                let mut text = String::new();
                let _ = File::from(file).take(LONGEST).read_to_string(&mut text);
                return text;
            }
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_highest_layer_counts_and_no_link() {
        let root = std::env::temp_dir().join(format!("pier-engine-user-{}", std::process::id()));
        let layer = |name: &str, passwd: &str| {
            std::fs::create_dir_all(root.join(name).join("etc")).unwrap();
            std::fs::write(root.join(name).join("etc/passwd"), passwd).unwrap();
            root.join(name).display().to_string()
        };
        let low = layer("low", "web:x:33:34::/:\n");
        let high = layer("high", "web:x:5:6::/:\n");
        let empty = root.join("empty").display().to_string();
        std::fs::create_dir_all(&empty).unwrap();
        let linked = root.join("linked").display().to_string();
        std::fs::create_dir_all(&linked).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("linked/etc")).unwrap();
        assert_eq!(ids("web", &[low.clone(), high.clone(), empty.clone()]).unwrap(), (5, 6));
        assert_eq!(ids("web", &[low.clone(), empty]).unwrap(), (33, 34));
        assert_eq!(ids("7:8", std::slice::from_ref(&low)).unwrap(), (7, 8));
        assert_eq!(ids("", &[]).unwrap(), (0, 0));
        assert!(ids("root", &[low.clone(), linked]).is_err() && ids("nobody", &[low, high]).is_err());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
