//! The policy file: containers-policy.json(5), read strictly. What is not known refuses the whole file: a rule that was misread
//! would let in what it should not.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

use super::identity::Identity;
use super::key::PublicKey;
use super::{Error, Subject};

/// Largest policy that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// A policy, with its keys.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(super) path: PathBuf,
    default: Vec<Requirement>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// One thing that is required of an image.
#[derive(Debug, Clone)]
pub(super) enum Requirement {
    Accept,
    Reject,
    /// A signature by one of the keys, for a name that fits.
    Signed {
        keys: Vec<PublicKey>,
        identity: Identity,
    },
}

/// A map in which no key stands twice.
struct Unique<V>(BTreeMap<String, V>);

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V: DeserializeOwned> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(std::marker::PhantomData<V>);
        impl<'de, V: DeserializeOwned> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if all.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{key:?} stands there twice")));
                    }
                }
                Ok(Unique(all))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Written>,
    #[serde(default)]
    transports: Unique<Unique<Vec<Written>>>,
}

/// A requirement as it is written.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
enum Written {
    InsecureAcceptAnything {},
    Reject {},
    SigstoreSigned(Box<Signed>),
    SignedBy(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Signed {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    #[serde(default)]
    signed_identity: Identity,
}

impl Policy {
    /// Reads a policy and all keys that it names.
    ///
    /// # Errors
    /// [`Error::Policy`] names the file and the place in it; [`Error::Key`] the key.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let fail = |problem: String| Error::Policy { path: path.to_owned(), problem };
        let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if size > FILE_MAX {
            return Err(fail(format!("it has {size} bytes, at most {FILE_MAX} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        Self::parse(&text, path)
    }

    /// Reads a policy's text; `path` is for messages, and relative keys lie beside it.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let fail = |problem: String| Error::Policy { path: path.to_owned(), problem };
        let file: File = serde_json::from_str(text).map_err(|e| fail(e.to_string()))?;
        let read = |written: Vec<Written>, place: String| -> Result<Vec<Requirement>, Error> {
            if written.is_empty() {
                return Err(fail(format!("{place}: an empty list; say insecureAcceptAnything or reject")));
            }
            let each =
                |(number, one)| requirement(one, path).map_err(|problem| fail(format!("{place}[{number}]: {problem}")));
            written.into_iter().enumerate().map(each).collect()
        };
        let default = read(file.default, "default".into())?;
        let mut transports = BTreeMap::new();
        for (transport, scopes) in file.transports.0 {
            let mut all = BTreeMap::new();
            for (scope, written) in scopes.0 {
                let place = format!("transports.{transport}.{scope:?}");
                check_scope(&transport, &scope).map_err(|problem| fail(format!("{place}: {problem}")))?;
                all.insert(scope, read(written, place)?);
            }
            transports.insert(transport, all);
        }
        Ok(Self { path: path.to_owned(), default, transports })
    }

    /// What applies to an image, and where that stands: the most specific scope alone.
    pub(super) fn of(&self, subject: &Subject) -> (String, &[Requirement]) {
        let Some(scopes) = self.transports.get(subject.transport) else {
            return ("default".into(), &self.default);
        };
        let own = subject.scopes.iter().map(String::as_str).chain([""]);
        let found = own.filter_map(|scope| Some((scope, scopes.get(scope)?))).next();
        match found {
            Some((scope, requirements)) => (format!("transports.{}.{scope:?}", subject.transport), requirements),
            None => ("default".into(), &self.default),
        }
    }
}

fn check_scope(transport: &str, scope: &str) -> Result<(), String> {
    let wildcard = scope.strip_prefix("*.").unwrap_or(scope);
    if transport == "docker" && (wildcard.contains('*') || (scope.starts_with("*.") && scope.contains('/'))) {
        return Err("a wildcard stands for the first labels of a host: *.example.com".into());
    }
    if scope == "/" {
        return Err("the whole file system is the scope \"\"".into());
    }
    Ok(())
}

fn requirement(written: Written, policy: &Path) -> Result<Requirement, String> {
    let signed = match written {
        Written::InsecureAcceptAnything {} => return Ok(Requirement::Accept),
        Written::Reject {} => return Ok(Requirement::Reject),
        Written::SignedBy(_) => {
            return Err(
                "signedBy (GPG keys) is not supported here; sign with sigstore keys, and require sigstoreSigned".into(),
            );
        }
        Written::SigstoreSigned(signed) => *signed,
    };
    let given =
        [signed.key_path.is_some(), signed.key_paths.is_some(), signed.key_data.is_some(), signed.key_datas.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err("sigstoreSigned needs exactly one of keyPath, keyPaths, keyData, keyDatas".into());
    }
    if let Some(problem) = signed.signed_identity.problem() {
        return Err(format!("signedIdentity: {problem}"));
    }
    let paths = signed.key_path.into_iter().chain(signed.key_paths.into_iter().flatten());
    let beside = policy.parent().unwrap_or(Path::new("/"));
    let files = paths.map(|path| PublicKey::load(&beside.join(path)));
    let datas: Vec<String> = signed.key_data.into_iter().chain(signed.key_datas.into_iter().flatten()).collect();
    let inline = datas.iter().enumerate().map(|(number, text)| inline(text, number));
    let keys = files.chain(inline).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    if keys.is_empty() {
        return Err("sigstoreSigned names no key".into());
    }
    Ok(Requirement::Signed { keys, identity: signed.signed_identity })
}

/// Keys in the policy itself are PEM in base64.
fn inline(text: &str, number: usize) -> Result<PublicKey, Error> {
    let name = format!("keyData {number}");
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| Error::key(&name, e))?;
    PublicKey::parse(&String::from_utf8_lossy(&bytes), &name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::key::{Kind, PrivateKey};
    use super::*;

    fn parse(text: &str) -> Result<Policy, Error> {
        Policy::parse(text, Path::new("/p/policy.json"))
    }

    #[test]
    fn the_most_specific_scope_alone_counts() {
        let policy = parse(
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{
                "":[{"type":"insecureAcceptAnything"}], "r.io/a":[{"type":"reject"}],
                "r.io/a/b:1":[{"type":"insecureAcceptAnything"}], "*.example.com":[{"type":"reject"}]}}}"#,
        )
        .unwrap();
        for (name, scope) in [
            ("r.io/a/b:1", "transports.docker.\"r.io/a/b:1\""),
            ("r.io/a/b:2", "transports.docker.\"r.io/a\""),
            ("r.io/ab:2", "transports.docker.\"\""),
            ("x.example.com/a", "transports.docker.\"*.example.com\""),
            ("example.com/a", "transports.docker.\"\""),
        ] {
            assert_eq!(policy.of(&Subject::registry(&name.parse().unwrap())).0, scope, "{name}");
        }
        assert_eq!(policy.of(&Subject::file("dir", Path::new("/x"), None)).0, "default");
    }

    #[test]
    fn a_bad_policy_names_the_key_and_the_place() {
        let long = |inner: &str| {
            format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"r.io":[{inner}]}}}}}}"#)
        };
        for (text, words) in [
            ("{}".to_owned(), "default"),
            (r#"{"default":[]}"#.into(), "default: an empty list"),
            (r#"{"default":[{"type":"reject"}],"extra":1}"#.into(), "extra"),
            (r#"{"default":[{"type":"maybe"}]}"#.into(), "maybe"),
            (r#"{"default":[{"type":"reject","extra":1}]}"#.into(), "extra"),
            (
                long(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#),
                "transports.docker.\"r.io\"[0]: signedBy (GPG",
            ),
            (long(r#"{"type":"sigstoreSigned"}"#), "exactly one of keyPath"),
            (long(r#"{"type":"sigstoreSigned","keyPath":"/a","keyData":"x"}"#), "exactly one of keyPath"),
            (long(r#"{"type":"sigstoreSigned","keyPath":"/no/such/key"}"#), "/no/such/key"),
            (long(r#"{"type":"sigstoreSigned","keyData":"eA=="}"#), "keyData 0"),
            (long(r#"{"type":"sigstoreSigned","fulcio":{}}"#), "fulcio"),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[],"a":[]}}}"#.into(), "twice"),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.*":[{"type":"reject"}]}}}"#.into(),
                "wildcard",
            ),
        ] {
            let message = parse(&text).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("/p/policy.json"), "{text}: {message}");
        }
    }

    #[test]
    fn keys_may_stand_in_the_policy() {
        let pem = PrivateKey::generate(Kind::Ed25519).public().to_pem().unwrap();
        let data = base64::engine::general_purpose::STANDARD.encode(pem);
        let text = format!(
            r#"{{"default":[{{"type":"sigstoreSigned","keyDatas":["{data}","{data}"],"signedIdentity":{{"type":"matchRepository"}}}}]}}"#
        );
        let policy = parse(&text).unwrap();
        assert!(matches!(&policy.default[0], Requirement::Signed { keys, .. } if keys.len() == 2));
    }
}
