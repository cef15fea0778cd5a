//! Keys, signatures, policies.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::{FormatArg, Registry};

/// Which images are let in.
#[derive(Debug, Clone, ClapArgs)]
pub struct TrustPolicy {
    /// Let in only what this policy allows (containers-policy.json(5)) [default: /etc/pier/policy.json where it exists]
    #[arg(long, env = "PIER_POLICY", value_name = "FILE")]
    pub trust_policy: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key pair: PREFIX.key, encrypted as cosign does it, and PREFIX.pub
    Generate {
        #[arg(long, value_enum, default_value_t)]
        kind: KeyKind,
        /// Where the two files go
        #[arg(long, default_value = "cosign", value_name = "PREFIX")]
        output: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
    },
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum KeyKind {
    /// ECDSA on P-256: what every verifier reads
    #[default]
    Ecdsa,
    /// Ed25519
    Ed25519,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct Passphrase {
    /// Its first line unlocks the private key [default: $COSIGN_PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Sign {
    /// docker://NAME (or NAME alone) or oci:DIR[:NAME]
    pub image: String,
    /// Private key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    #[command(flatten)]
    pub passphrase: Passphrase,
    /// The name to vouch for [default: the image's; a layout's image needs it]
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Put the signature as a referrer (OCI 1.1) instead of the tag sha256-….sig
    #[arg(long)]
    pub referrer: bool,
    /// Also each image of an index: podman and skopeo look at those
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Verify {
    /// docker://NAME (or NAME alone) or oci:DIR[:NAME]
    pub image: String,
    /// Public key; a signature by any of them counts
    #[arg(long, value_name = "FILE", required = true)]
    pub key: Vec<PathBuf>,
    /// The name that must have been vouched for [default: any of the image's repository]
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, Subcommand)]
pub enum Attestation {
    /// List statements about an image, and which key signed them
    Ls(ListAttestations),
}

#[derive(Debug, ClapArgs)]
pub struct ListAttestations {
    /// docker://NAME (or NAME alone) or oci:DIR[:NAME]
    pub image: String,
    /// Public key; exit code 1 unless there is a statement about the image signed by one of them
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// Only of this type
    #[arg(long, value_name = "URI")]
    pub predicate_type: Option<String>,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}
