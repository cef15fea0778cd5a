//! What a policy calls an image: its transport, and its scopes from the most to the least specific (containers-policy.json(5),
//! "Supported transports and their scopes").

use std::path::Path;

use oci::Reference;

use crate::transport::Location;

/// An image as a policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// "docker", "oci", "dir", "oci-archive", "docker-archive".
    pub transport: &'static str,
    /// Most specific first; without the empty one, which stands for all of the transport.
    pub scopes: Vec<String>,
    /// The name to compare with the one in a signature; only images of registries have one.
    pub reference: Option<Reference>,
    /// The tag, or the name in a layout: what belongs to an image lies under one made of its digest.
    pub tag: Option<String>,
    /// For messages.
    pub image: String,
}

impl Subject {
    /// An image of a registry.
    #[must_use]
    pub fn registry(reference: &Reference) -> Self {
        let scopes = docker_scopes(reference);
        let tag = reference.tag().map(str::to_owned);
        Self { transport: "docker", scopes, reference: Some(reference.clone()), tag, image: reference.to_string() }
    }

    /// What a location names; none for the store, whose images were let in before.
    #[must_use]
    pub fn of(location: &Location) -> Option<Self> {
        let (transport, path, name) = match location {
            Location::Store(_) => return None,
            Location::Registry(reference) => return Some(Self::registry(reference)),
            Location::OciLayout { path, name } => ("oci", path, name.as_deref()),
            Location::OciArchive { path, name } => ("oci-archive", path, name.as_deref()),
            Location::DockerArchive { path, name } => ("docker-archive", path, name.as_deref()),
            Location::Dir { path } => ("dir", path, None),
        };
        Some(Self::file(transport, path, name))
    }

    /// An image of a file or directory.
    #[must_use]
    pub fn file(transport: &'static str, path: &Path, name: Option<&str>) -> Self {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let named = name.map(|name| format!("{}:{name}", path.display()));
        let parents = path.ancestors().take_while(|parent| parent.parent().is_some());
        let scopes = named.into_iter().chain(parents.map(|parent| parent.display().to_string())).collect();
        let tag = name.map(str::to_owned);
        Self { transport, scopes, reference: None, tag, image: format!("{transport}:{}", path.display()) }
    }
}

/// The name with its version, the repository, what is above it, the host, and wildcards for the domains above that.
fn docker_scopes(reference: &Reference) -> Vec<String> {
    let repository = reference.name();
    let mut scopes: Vec<String> = [
        reference.digest().map(|digest| format!("{repository}@{digest}")),
        reference.tag().map(|tag| format!("{repository}:{tag}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut rest = repository.as_str();
    loop {
        scopes.push(rest.to_owned());
        match rest.rsplit_once('/') {
            Some((parent, _)) => rest = parent,
            None => break,
        }
    }
    let host = rest.split_once(':').map_or(rest, |(host, _)| host);
    let mut domain = host;
    while let Some((_, parent)) = domain.split_once('.') {
        scopes.push(format!("*.{parent}"));
        domain = parent;
    }
    scopes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_most_specific_scope_is_first() {
        let reference: Reference = "r.example.com:5000/a/b:1".parse().unwrap();
        let expected = [
            "r.example.com:5000/a/b:1",
            "r.example.com:5000/a/b",
            "r.example.com:5000/a",
            "r.example.com:5000",
            "*.example.com",
            "*.com",
        ];
        assert_eq!(Subject::registry(&reference).scopes, expected);
        let layout = Location::OciLayout { path: "/nowhere/at/all".into(), name: Some("x".into()) };
        let expected = ["/nowhere/at/all:x", "/nowhere/at/all", "/nowhere/at", "/nowhere"];
        assert_eq!(Subject::of(&layout).unwrap().scopes, expected);
        assert_eq!(Subject::of(&Location::Store("x".into())), None);
    }
}
