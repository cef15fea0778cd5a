//! Network namespaces bound at `<run>/network/ns/<key>`.
//!
//! The directory is a shared mount of its own: a shim's private copy of the mount tree receives the binding, and
//! lets go of it when it is taken away here, so that no running container keeps the namespace of a dead one alive.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::networks::Networks;
use crate::store::EndpointFilter;
use std::collections::BTreeMap;
use sys::netns::{Netns, create_bound, is_mount_point, share_directory, unbind};

impl Networks {
    /// Makes a namespace with its loopback up, or finds the one there is.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Kernel`].
    pub fn create_namespace(&self, key: &str, sysctls: &BTreeMap<String, String>) -> Result<PathBuf> {
        check_key(key)?;
        let settings =
            sysctls.iter().map(|(name, value)| Ok((sysctl_path(name)?, value))).collect::<Result<Vec<_>>>()?;
        let _lock = self.lock()?;
        let dir = self.config.namespaces();
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        share_directory(&dir).map_err(Error::kernel(format!("share mounts in {}", dir.display())))?;
        let path = dir.join(key);
        if Netns::open(&path).is_ok() {
            return Ok(path);
        }
        fs::File::create(&path).map_err(Error::io(&path))?;
        let made = create_bound(&path, || {
            set_loopback_up()?;
            settings.iter().try_for_each(|(path, value)| {
                fs::write(path, value)
                    .map_err(|error| io::Error::new(error.kind(), format!("{} = {value:?}: {error}", path.display())))
            })
        });
        match made {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                self.unshare_if_empty()?;
                Err(Error::kernel(format!("make network namespace {key:?}"))(error))
            }
        }
    }

    /// Detaches every endpoint in a namespace and unbinds it; fine when it is gone. Returns warnings.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Io`], [`Error::Kernel`].
    pub fn remove_namespace(&self, key: &str) -> Result<Vec<String>> {
        check_key(key)?;
        let path = self.config.namespaces().join(key);
        let netns = Some(path.to_string_lossy().into_owned());
        let filter = EndpointFilter { netns, ..EndpointFilter::default() };
        let (_, mut warnings) = self.detach_foreign(&filter, false)?;
        let _lock = self.lock()?;
        warnings.extend(self.detach_all(&filter)?.warnings);
        unbind(&path).map_err(Error::kernel(format!("unbind {}", path.display())))?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(&path)(error)),
            _ => {}
        }
        self.unshare_if_empty()?;
        Ok(warnings)
    }

    /// Keys of the namespaces there are.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn namespaces(&self) -> Result<Vec<String>> {
        let dir = self.config.namespaces();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io(&dir))?,
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(&dir))?;
            if Netns::open(&entry.path()).is_ok() {
                keys.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Removes files that no namespace is bound to: what a crash or a reboot left. The caller holds the lock.
    pub(crate) fn sweep_namespaces(&self) -> Result<Vec<String>> {
        let dir = self.config.namespaces();
        let Ok(entries) = fs::read_dir(&dir) else { return Ok(Vec::new()) };
        let mut swept = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if Netns::open(&path).is_err() && fs::remove_file(&path).is_ok() {
                swept.push(format!("{}: no namespace was bound to it", path.display()));
            }
        }
        self.unshare_if_empty()?;
        Ok(swept)
    }

    /// With the last namespace the directory's own mount goes.
    fn unshare_if_empty(&self) -> Result<()> {
        let dir = self.config.namespaces();
        let empty = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_none());
        if empty && is_mount_point(&dir).unwrap_or(false) {
            unbind(&dir).map_err(Error::kernel(format!("unbind {}", dir.display())))?;
        }
        Ok(())
    }
}

fn set_loopback_up() -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink.link("lo")?.map_or(1, |link| link.index);
    netlink.set_up(index)
}

fn check_key(key: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if key.is_empty() || key.len() > 255 || !key.bytes().all(plain) || matches!(key, "." | "..") {
        return Err(Error::invalid(format!("namespace key {key:?}"), "1 to 255 of [a-zA-Z0-9_.-] are needed"));
    }
    Ok(())
}

/// `net.ipv4.ip_forward` or `net/ipv4/ip_forward`; like sysctl(8), the first separator decides.
fn sysctl_path(name: &str) -> Result<PathBuf> {
    let invalid = |why: &str| Error::invalid(format!("sysctl {name:?}"), why);
    let dotted = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let path: String = if dotted { name.chars().map(swap).collect() } else { name.to_owned() };
    let Some(rest) = path.strip_prefix("net/") else {
        return Err(invalid("only settings below net. belong to a network namespace"));
    };
    if rest.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(invalid("not the name of a setting"));
    }
    Ok(PathBuf::from("/proc/sys").join(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_stay_below_net() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward").unwrap(), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.5/forwarding").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/forwarding")
        );
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/5.forwarding").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/forwarding")
        );
        for bad in ["kernel.hostname", "net", "net.", "net/../kernel/hostname", "net..x", ""] {
            assert!(sysctl_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_file_names() {
        assert!(check_key("0f-a_b.c").is_ok());
        for bad in ["", ".", "..", "a/b", "a b"] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
    }
}
