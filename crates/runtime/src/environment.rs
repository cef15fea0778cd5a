//! The program's environment and where its file is, without libc's name service (which would load code out of the image).

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;

/// Searched when the configuration has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment: the configuration's, and `HOME` if it is not in there. Runs inside the container.
pub(crate) fn build(process: &Process, extra: &[String]) -> Result<Vec<CString>, String> {
    let mut all: Vec<String> = process.env().clone().unwrap_or_default();
    all.extend_from_slice(extra);
    let mut all = last_of_each(all)?;
    if !all.iter().any(|e| e.starts_with("HOME=") && e.len() > 5) {
        all.retain(|e| !e.starts_with("HOME="));
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        all.push(format!("HOME={}", home(&passwd, process.user().uid())));
    }
    c_strings(&all)
}

/// A name that is set twice has its last value: programs differ in which one they would take.
fn last_of_each(words: Vec<String>) -> Result<Vec<String>, String> {
    let mut seen = std::collections::HashSet::new();
    let mut last = Vec::with_capacity(words.len());
    for word in words.into_iter().rev() {
        match word.split_once('=') {
            None => return Err(format!("invalid environment variable {word:?}: missing '='")),
            Some(("", _)) => return Err(format!("invalid environment variable {word:?}: name cannot be empty")),
            Some((name, _)) if !seen.insert(name.to_owned()) => {}
            Some(_) => last.push(word),
        }
    }
    last.reverse();
    Ok(last)
}

/// C strings of words.
pub(crate) fn c_strings(words: &[String]) -> Result<Vec<CString>, String> {
    words.iter().map(|w| CString::new(w.as_bytes()).map_err(|_| format!("{w:?} has a NUL byte"))).collect()
}

/// The home directory of a user in the text of a passwd file; `/` if there is none.
fn home(passwd: &str, uid: u32) -> &str {
    passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let id: u32 = fields.nth(2)?.parse().ok()?;
            (id == uid).then(|| fields.nth(2)).flatten()
        })
        .find(|dir| dir.starts_with('/'))
        .unwrap_or("/")
}

/// The file that a program name means, found as a shell would. Runs inside the container, as its user.
///
/// The messages are runc's: callers turn them into exit codes 126 and 127.
pub(crate) fn executable(name: &str, environment: &[CString]) -> Result<CString, String> {
    let found =
        |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| "NUL byte in a path".to_owned());
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => found(Path::new(name)),
            Err(why) => Err(format!("exec: {name:?}: {why}")),
        };
    }
    let path = environment.iter().rev().find_map(|e| e.to_str().ok()?.strip_prefix("PATH="));
    let mut denied = false;
    for dir in path.unwrap_or(DEFAULT_PATH).split(':') {
        let candidate = PathBuf::from(if dir.is_empty() { "." } else { dir }).join(name);
        match check(&candidate) {
            Ok(()) => return found(&candidate),
            Err(why) => denied |= why.contains("permission denied"),
        }
    }
    if denied {
        return Err(format!("exec: {name:?}: permission denied"));
    }
    Err(format!("exec: {name:?}: executable file not found in $PATH"))
}

fn check(path: &Path) -> Result<(), String> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("stat {}: no such file or directory", path.display()),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => format!("stat {}: {e}", path.display()),
    })?;
    if meta.is_dir() {
        return Err("is a directory".into());
    }
    // With the effective ids, and on a file that somebody may execute: root passes access(2) only then, too.
    if meta.permissions().mode() & 0o111 == 0 || accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        return Err("permission denied".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn homes() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbad line\nme:x:1000:1000::/home/me:/bin/sh\nodd:x:5:5::relative:/x\n";
        assert_eq!(home(passwd, 0), "/root");
        assert_eq!(home(passwd, 1000), "/home/me");
        assert_eq!(home(passwd, 5), "/");
        assert_eq!(home(passwd, 7), "/");
    }

    #[test]
    fn the_last_value_counts() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let given = words(&["A=1", "B=2", "A=", "C=a=b"]);
        assert_eq!(last_of_each(given).unwrap(), words(&["B=2", "A=", "C=a=b"]));
        assert!(last_of_each(words(&["A"])).unwrap_err().contains("missing '='"));
        assert!(last_of_each(words(&["=x"])).is_err());
    }

    #[test]
    fn lookup() {
        let path = [CString::new("PATH=/nowhere:/bin").unwrap()];
        assert_eq!(executable("sh", &path).unwrap().to_str().unwrap(), "/bin/sh");
        assert!(executable("sh", &[]).is_ok(), "no PATH is tolerated");
        assert!(executable("no-such-thing", &path).unwrap_err().contains("executable file not found in $PATH"));
        assert!(executable("/no/such", &path).unwrap_err().contains("no such file or directory"));
        assert!(executable("/etc/passwd", &path).unwrap_err().contains("permission denied"));
    }
}
