//! Flags of everything that talks to registries.

use std::path::PathBuf;

use clap::Args as ClapArgs;

#[derive(Debug, Clone, ClapArgs)]
pub struct AuthFile {
    /// Credentials file [default: podman's auth.json, then docker's config.json; logins go to docker's]
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE", alias = "authfile")]
    pub auth_file: Option<PathBuf>,
}

/// Where registries are and how they are trusted.
#[derive(Debug, Clone, ClapArgs)]
pub struct RegistryFiles {
    /// Mirrors, blocked and insecure registries: containers-registries.conf(5)
    /// [default: /etc/pier/registries.conf, ~/.config/containers/registries.conf, /etc/containers/registries.conf]
    #[arg(long, env = "PIER_REGISTRIES_CONF", value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
    /// CAs and client certificates in <host[:port]>/*.{crt,cert,key}: containers-certs.d(5)
    /// [default: ~/.config/containers/certs.d, /etc/{pier,containers,docker}/certs.d]
    #[arg(long, env = "PIER_CERTS_DIR", value_name = "DIR")]
    pub certs_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct Registry {
    #[command(flatten)]
    pub auth: AuthFile,
    #[command(flatten)]
    pub files: RegistryFiles,
    /// Credentials, before any file is asked
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,
    /// Speak plain HTTP (ports of this machine are asked what they speak)
    #[arg(long)]
    pub plain_http: bool,
    /// Accept any TLS certificate
    #[arg(long)]
    pub tls_skip_verify: bool,
    /// Accept any TLS certificate, and plain HTTP from a registry that speaks no TLS
    #[arg(long)]
    pub insecure: bool,
    /// As skopeo and podman have it: =false is --insecure
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        conflicts_with = "insecure"
    )]
    pub tls_verify: Option<bool>,
    #[command(flatten)]
    pub trust: super::TrustPolicy,
}

/// The same for two registries: what is said of one side counts before what is said of both.
#[derive(Debug, Clone, ClapArgs)]
pub struct Sides {
    #[command(flatten)]
    pub both: Registry,
    /// Credentials of the source only
    #[arg(long, value_name = "USER:PASSWORD")]
    pub src_creds: Option<String>,
    /// Credentials of the destination only
    #[arg(long, value_name = "USER:PASSWORD")]
    pub dest_creds: Option<String>,
    /// Ask the source without credentials
    #[arg(long, conflicts_with = "src_creds")]
    pub src_no_creds: bool,
    /// Ask the destination without credentials
    #[arg(long, conflicts_with = "dest_creds")]
    pub dest_no_creds: bool,
    /// Credentials file of the source only
    #[arg(long, value_name = "FILE", alias = "src-authfile")]
    pub src_auth_file: Option<PathBuf>,
    /// Credentials file of the destination only
    #[arg(long, value_name = "FILE", alias = "dest-authfile")]
    pub dest_auth_file: Option<PathBuf>,
    /// Speak plain HTTP to the source
    #[arg(long)]
    pub src_plain_http: bool,
    /// Speak plain HTTP to the destination
    #[arg(long)]
    pub dest_plain_http: bool,
    /// Accept any TLS certificate of the source
    #[arg(long)]
    pub src_tls_skip_verify: bool,
    /// Accept any TLS certificate of the destination
    #[arg(long)]
    pub dest_tls_skip_verify: bool,
    /// --tls-verify for the source only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub src_tls_verify: Option<bool>,
    /// --tls-verify for the destination only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dest_tls_verify: Option<bool>,
}
