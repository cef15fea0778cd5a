//! What a sigstore signature with a key is over: a "simple signing" payload (containers-signature(5), "JSON data format"; cosign's
//! SIGNATURE_SPEC).

use oci::Digest;
use serde::{Deserialize, Serialize};

/// What cosign and podman write.
const TYPE: &str = "cosign container image signature";

/// Says: this manifest may be called by this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload {
    critical: Critical,
    #[serde(default)]
    optional: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Named,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: Digest,
}

impl Payload {
    /// For a manifest and a name.
    pub fn new(digest: &Digest, name: &str) -> Self {
        let identity = Named { docker_reference: name.into() };
        let image = Image { docker_manifest_digest: digest.clone() };
        let creator = concat!("pier-distribution ", env!("CARGO_PKG_VERSION"));
        let optional = [("creator".to_owned(), creator.into())].into_iter().collect();
        Self { critical: Critical { identity, image, kind: TYPE.into() }, optional: Some(optional) }
    }

    /// Reads bytes whose signature was verified. `critical` holds nothing that is not understood.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let payload: Self = serde_json::from_slice(bytes).map_err(|e| format!("its payload is not valid: {e}"))?;
        match payload.critical.kind == TYPE {
            true => Ok(payload),
            false => Err(format!("its payload is of the unknown type {:?}", payload.critical.kind)),
        }
    }

    /// The bytes to sign.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The manifest that it is about.
    pub fn digest(&self) -> &Digest {
        &self.critical.image.docker_manifest_digest
    }

    /// The name that it is for.
    pub fn name(&self) -> &str {
        &self.critical.identity.docker_reference
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_critical_is_overlooked() {
        let payload = Payload::new(&Digest::of(b"m"), "r.io/a:1");
        assert_eq!(Payload::parse(&payload.to_bytes()).unwrap(), payload);
        let text = String::from_utf8(payload.to_bytes()).unwrap();
        assert!(Payload::parse(text.replace("\"image\"", "\"expires\":1,\"image\"").as_bytes()).is_err());
        assert!(Payload::parse(text.replace(TYPE, "other").as_bytes()).unwrap_err().contains("other"));
        let cosign = text.replace(&text[text.find("\"optional\"").unwrap()..], "\"optional\":null}");
        assert!(Payload::parse(cosign.as_bytes()).is_ok());
    }
}
