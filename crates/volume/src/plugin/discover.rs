//! Where drivers are: a socket, or a file that says where, named after the driver.
//! <https://docs.docker.com/engine/extend/plugin_api/#plugin-discovery>

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Result, record};

/// Files of a `.json` description; all PEM.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Tls {
    pub insecure_skip_verify: bool,
    #[serde(rename = "CAFile")]
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// How a driver is reached.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// docker's protocol on a unix socket.
    Unix(PathBuf),
    /// docker's protocol on TCP.
    Tcp { address: String, tls: Option<Tls> },
    /// `pier.volume.driver.v1` on a unix socket.
    Grpc(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address, tls: None } => write!(f, "tcp://{address}"),
            Self::Tcp { address, tls: Some(_) } => write!(f, "https://{address}"),
            Self::Grpc(path) => write!(f, "grpc+unix://{}", path.display()),
        }
    }
}

/// docker's places.
pub(crate) fn directories() -> Vec<PathBuf> {
    ["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"].map(PathBuf::from).to_vec()
}

/// The driver of a name: the first directory that knows it.
pub(crate) fn find(directories: &[PathBuf], name: &str) -> Result<Endpoint> {
    record::check_name(name).map_err(|_| Error::UnknownDriver(name.into()))?;
    for directory in directories {
        if let Some(endpoint) = within(directory, name)? {
            return Ok(endpoint);
        }
    }
    Err(Error::UnknownDriver(name.into()))
}

/// All drivers by name; descriptions that cannot be read are left out.
pub(crate) fn all(directories: &[PathBuf]) -> BTreeMap<String, Endpoint> {
    let mut found = BTreeMap::new();
    for directory in directories {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let name = [".grpc.sock", ".sock", ".spec", ".json"].iter().find_map(|end| file.strip_suffix(end));
            let name = name.unwrap_or(&file).to_owned();
            if let (false, Ok(Some(endpoint))) = (found.contains_key(&name), within(directory, &name)) {
                found.insert(name, endpoint);
            }
        }
    }
    found
}

fn within(directory: &Path, name: &str) -> Result<Option<Endpoint>> {
    let at = |end: &str| directory.join(format!("{name}{end}"));
    if at(".grpc.sock").exists() {
        return Ok(Some(Endpoint::Grpc(at(".grpc.sock"))));
    }
    for socket in [at(".sock"), directory.join(name).join(format!("{name}.sock"))] {
        if socket.exists() {
            return Ok(Some(Endpoint::Unix(socket)));
        }
    }
    let bad = |path: &Path, why: String| Error::Driver {
        driver: name.into(),
        call: format!("read {}", path.display()),
        why,
        silent: false,
    };
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

fn address(url: &str, tls: Option<Tls>) -> std::result::Result<Endpoint, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("tcp", url));
    let rest = rest.trim_end_matches('/');
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Endpoint::Unix(rest.into())),
        "grpc+unix" if rest.starts_with('/') => Ok(Endpoint::Grpc(rest.into())),
        "tcp" | "http" if !rest.is_empty() => Ok(Endpoint::Tcp { address: rest.into(), tls }),
        "https" if !rest.is_empty() => Ok(Endpoint::Tcp { address: rest.into(), tls: Some(tls.unwrap_or_default()) }),
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
        let directory = std::env::temp_dir().join(format!("pier-volume-plugins-{}", std::process::id()));
        fs::create_dir_all(directory.join("sub")).unwrap();
        fs::write(directory.join("a.sock"), "").unwrap();
        fs::write(directory.join("b.grpc.sock"), "").unwrap();
        fs::write(directory.join("sub/sub.sock"), "").unwrap();
        fs::write(directory.join("c.spec"), "tcp://localhost:1\n").unwrap();
        let tls = r#"{"Name": "d", "Addr": "https://h:2", "TLSConfig": {"CAFile": "/ca.pem"}}"#;
        fs::write(directory.join("d.json"), tls).unwrap();
        fs::write(directory.join("e.spec"), "ftp://x").unwrap();
        let at = [directory.clone()];
        let shown = |name| find(&at, name).map(|endpoint| endpoint.to_string());
        assert!(shown("a").unwrap().ends_with("/a.sock") && shown("a").unwrap().starts_with("unix:///"));
        assert!(shown("b").unwrap().starts_with("grpc+unix:///"));
        assert!(shown("sub").unwrap().ends_with("/sub/sub.sock"));
        assert_eq!(shown("c").unwrap(), "tcp://localhost:1");
        assert_eq!(shown("d").unwrap(), "https://h:2");
        assert!(
            matches!(find(&at, "d").unwrap(), Endpoint::Tcp { tls: Some(tls), .. } if tls.ca_file == Path::new("/ca.pem"))
        );
        assert!(matches!(shown("e"), Err(Error::Driver { .. })));
        assert!(matches!(shown("nope"), Err(Error::UnknownDriver(_))));
        assert!(matches!(shown("../x"), Err(Error::UnknownDriver(_))));
        assert_eq!(all(&at).into_keys().collect::<Vec<_>>(), ["a", "b", "c", "d", "sub"]);
        fs::remove_dir_all(&directory).unwrap();
    }
}
