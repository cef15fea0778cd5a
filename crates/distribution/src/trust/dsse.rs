//! Signed statements: DSSE envelopes (the "Dead Simple Signing Envelope" protocol) with in-toto statements, alone or in a sigstore
//! bundle.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::Digest;
use serde::Deserialize;

use super::key::PublicKey;

/// An envelope.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope {
    payload_type: String,
    payload: String,
    #[serde(default)]
    signatures: Vec<Signed>,
}

#[derive(Debug, Clone, Deserialize)]
struct Signed {
    sig: String,
}

/// A sigstore bundle, as far as keys go.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Option<Envelope>,
}

/// An in-toto statement (v0.1 and v1): something is said about digests.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statement {
    #[serde(default)]
    pub subject: Vec<About>,
    pub predicate_type: String,
}

/// What a statement is about.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct About {
    #[serde(default)]
    pub digest: std::collections::BTreeMap<String, String>,
}

impl Envelope {
    /// Reads an envelope, or a bundle with one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let own = serde_json::from_slice(bytes).ok();
        own.or_else(|| serde_json::from_slice::<Bundle>(bytes).ok()?.dsse_envelope)
    }

    /// The payload; of a type that is not checked here.
    pub fn payload(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.payload).ok()
    }

    /// Whether anybody signed it.
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// The key that one of its signatures is by.
    pub fn verified_by<'k>(&self, keys: &'k [PublicKey]) -> Option<&'k PublicKey> {
        let message = pae(&self.payload_type, &self.payload()?);
        let signatures: Vec<Vec<u8>> = self.signatures.iter().filter_map(|s| STANDARD.decode(&s.sig).ok()).collect();
        keys.iter().find(|key| signatures.iter().any(|signature| key.verifies(&message, signature)))
    }
}

impl Statement {
    /// Whether it is about this digest.
    pub fn is_about(&self, digest: &Digest) -> bool {
        self.subject.iter().any(|about| about.digest.get(digest.algorithm()).is_some_and(|hex| hex == digest.hex()))
    }
}

/// DSSE's "pre-authentication encoding": what is signed.
fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::key::{Kind, PrivateKey};
    use super::*;

    #[test]
    fn the_protocols_own_example() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn an_envelope_is_verified_alone_and_in_a_bundle() {
        let digest = Digest::of(b"m");
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"t"}}"#,
            digest.hex()
        );
        let (key, other) = (PrivateKey::generate(Kind::EcdsaP256), PrivateKey::generate(Kind::EcdsaP256));
        let sig = STANDARD.encode(key.sign(&pae("application/vnd.in-toto+json", statement.as_bytes())));
        let text = format!(
            r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{}","signatures":[{{"keyid":"","sig":"{sig}"}}]}}"#,
            STANDARD.encode(&statement)
        );
        for text in [text.clone(), format!(r#"{{"mediaType":"b","dsseEnvelope":{text}}}"#)] {
            let envelope = Envelope::parse(text.as_bytes()).unwrap();
            assert!(envelope.verified_by(&[other.public(), key.public()]).is_some());
            assert!(envelope.verified_by(&[other.public()]).is_none());
            let statement: Statement = serde_json::from_slice(&envelope.payload().unwrap()).unwrap();
            assert!(statement.is_about(&digest) && !statement.is_about(&Digest::of(b"n")));
        }
        let altered = text.replace(&STANDARD.encode(&statement), &STANDARD.encode(statement.replace("\"t\"", "\"u\"")));
        assert!(Envelope::parse(altered.as_bytes()).unwrap().verified_by(&[key.public()]).is_none());
    }
}
