//! Where plugins are: a socket, or a file that says where, named after the plugin.
//! <https://docs.docker.com/engine/extend/plugin_api/#plugin-discovery>

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Problem;

/// Files of a `.json` description; all PEM.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Tls {
    /// Refused when a call is made.
    pub insecure_skip_verify: bool,
    /// Authorities of the plugin's certificate.
    #[serde(rename = "CAFile")]
    pub ca_file: PathBuf,
    /// Our certificate; empty: none.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// How a plugin is reached.
#[derive(Debug, Clone)]
pub enum Address {
    /// docker's protocol on a unix socket.
    Unix(PathBuf),
    /// docker's protocol on TCP.
    Tcp {
        /// Host and port.
        address: String,
        /// Absent: in the clear.
        tls: Option<Tls>,
    },
    /// Not docker's protocol: gRPC on a unix socket, in the caller's own service.
    Grpc(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address, tls: None } => write!(f, "tcp://{address}"),
            Self::Tcp { address, tls: Some(_) } => write!(f, "https://{address}"),
            Self::Grpc(path) => write!(f, "grpc+unix://{}", path.display()),
        }
    }
}

/// The plugin of a name, in the first directory that knows it.
///
/// # Errors
/// [`Problem::Said`] for a description that cannot be read.
pub fn find(directories: &[PathBuf], name: &str) -> Result<Option<Address>, Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name.starts_with('.') || name.is_empty() || !name.bytes().all(plain) {
        return Ok(None);
    }
    for directory in directories {
        if let Some(address) = within(directory, name)? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// All plugins by name; descriptions that cannot be read are left out.
pub fn all(directories: &[PathBuf]) -> BTreeMap<String, Address> {
    let mut found = BTreeMap::new();
    for directory in directories {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let name = [".grpc.sock", ".sock", ".spec", ".json"].iter().find_map(|end| file.strip_suffix(end));
            let name = name.unwrap_or(&file).to_owned();
            if let (false, Ok(Some(address))) = (found.contains_key(&name), within(directory, &name)) {
                found.insert(name, address);
            }
        }
    }
    found
}

fn within(directory: &Path, name: &str) -> Result<Option<Address>, Problem> {
    let at = |end: &str| directory.join(format!("{name}{end}"));
    if at(".grpc.sock").exists() {
        return Ok(Some(Address::Grpc(at(".grpc.sock"))));
    }
    for socket in [at(".sock"), directory.join(name).join(format!("{name}.sock"))] {
        if socket.exists() {
            return Ok(Some(Address::Unix(socket)));
        }
    }
    let bad = |path: &Path, why: String| Problem::Said(format!("{}: {why}", path.display()));
    if let Ok(text) = fs::read_to_string(at(".spec")) {
        return address(text.trim(), None).map(Some).map_err(|why| bad(&at(".spec"), why));
    }
    if let Ok(text) = fs::read_to_string(at(".json")) {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Description {
            addr: String,
            #[serde(rename = "TLSConfig")]
            tls: Option<Tls>,
        }
        let said: Description = serde_json::from_str(&text).map_err(|error| bad(&at(".json"), error.to_string()))?;
        return address(&said.addr, said.tls).map(Some).map_err(|why| bad(&at(".json"), why));
    }
    Ok(None)
}

fn address(url: &str, tls: Option<Tls>) -> Result<Address, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("tcp", url));
    let rest = rest.trim_end_matches('/');
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Address::Unix(rest.into())),
        "grpc+unix" if rest.starts_with('/') => Ok(Address::Grpc(rest.into())),
        "tcp" | "http" if !rest.is_empty() => Ok(Address::Tcp { address: rest.into(), tls }),
        "https" if !rest.is_empty() => Ok(Address::Tcp { address: rest.into(), tls: Some(tls.unwrap_or_default()) }),
        _ => {
            Err(format!("{url:?} is no address: expected unix:///PATH, tcp://HOST:PORT, https:// or grpc+unix:///PATH"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds() {
        let directory = std::env::temp_dir().join(format!("pier-plugins-{}", std::process::id()));
        fs::create_dir_all(directory.join("sub")).unwrap();
        fs::write(directory.join("a.sock"), "").unwrap();
        fs::write(directory.join("b.grpc.sock"), "").unwrap();
        fs::write(directory.join("sub/sub.sock"), "").unwrap();
        fs::write(directory.join("c.spec"), "tcp://localhost:1\n").unwrap();
        let tls = r#"{"Name": "d", "Addr": "https://h:2", "TLSConfig": {"CAFile": "/ca.pem"}}"#;
        fs::write(directory.join("d.json"), tls).unwrap();
        fs::write(directory.join("e.spec"), "ftp://x").unwrap();
        let at = [directory.clone()];
        let shown =
            |name| find(&at, name).map(|address| address.map(|address| address.to_string()).unwrap_or_default());
        assert!(shown("a").unwrap().ends_with("/a.sock") && shown("a").unwrap().starts_with("unix:///"));
        assert!(shown("b").unwrap().starts_with("grpc+unix:///"));
        assert!(shown("sub").unwrap().ends_with("/sub/sub.sock"));
        assert_eq!(shown("c").unwrap(), "tcp://localhost:1");
        assert_eq!(shown("d").unwrap(), "https://h:2");
        assert!(
            matches!(find(&at, "d").unwrap(), Some(Address::Tcp { tls: Some(tls), .. }) if tls.ca_file == Path::new("/ca.pem"))
        );
        assert!(matches!(shown("e"), Err(Problem::Said(why)) if why.contains("e.spec")));
        assert_eq!((shown("nope"), shown("../x")), (Ok(String::new()), Ok(String::new())));
        assert_eq!(all(&at).into_keys().collect::<Vec<_>>(), ["a", "b", "c", "d", "sub"]);
        fs::remove_dir_all(&directory).unwrap();
    }
}
