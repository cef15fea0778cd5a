//! The flags of every program's `serve`: where it listens, and who may call.
use crate::{Code, Failure, Listen, Listener, Server, TlsFiles, bind, socket_path};
use std::path::{Path, PathBuf};
use tonic::service::Routes;

/// Flatten this into the arguments of a verb that serves.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Door {
    /// Where to listen: unix://PATH, fd:// (socket activation) or tcp://ADDRESS:PORT (with mutual TLS) [default: the
    /// tool's own socket in the directory of --run]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// Group that may call too, by name or number
    #[arg(long, value_name = "GROUP", value_parser = gid)]
    group: Option<u32>,
    /// Certificate chain of the server, PEM, for TCP
    #[arg(id = "door_cert", long = "tls-cert", value_name = "FILE", requires_all = ["door_key", "door_ca"])]
    cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(id = "door_key", long = "tls-key", value_name = "FILE", requires = "door_cert")]
    key: Option<PathBuf>,
    /// Authority that the callers' certificates come from, PEM
    #[arg(id = "door_ca", long = "tls-ca", value_name = "FILE", requires = "door_cert")]
    ca: Option<PathBuf>,
}

impl Door {
    /// Binds, in `run` as `tool` unless an address was given. Needs a tokio runtime.
    ///
    /// # Errors
    /// Those of [`bind`]; `TLS_REQUIRED` for TCP without certificates.
    pub fn bind(&self, run: &Path, tool: &str) -> Result<Listener, Failure> {
        let listen = self.listen.clone().unwrap_or_else(|| Listen::Unix(socket_path(run, tool)));
        if matches!(listen, Listen::Tcp(_)) && self.tls().is_none() {
            return Err(Failure::new(Code::InvalidArgument, "TLS_REQUIRED", "TCP is served with mutual TLS only")
                .with_hint("give --tls-cert, --tls-key and --tls-ca"));
        }
        let listener = bind(&listen, self.group)?;
        tracing::info!(address = listener.address(), "serving");
        Ok(listener)
    }

    /// A server for those who may call.
    pub fn server(&self, routes: Routes) -> Server {
        Server::new(routes).group(self.group).tls(self.tls())
    }

    fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles { cert: self.cert.clone()?, key: self.key.clone()?, client_ca: self.ca.clone()? })
    }
}

/// A group's number, by what group(5) has.
fn gid(text: &str) -> Result<u32, String> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    let groups = std::fs::read_to_string("/etc/group").map_err(|e| format!("read /etc/group: {e}"))?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == text).then(|| fields.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| format!("there is no group {text:?}"))
}
