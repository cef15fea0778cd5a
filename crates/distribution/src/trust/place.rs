//! Where an image lies with what vouches for it: a repository of a registry, or an OCI layout.

use std::path::Path;

use oci::Digest;

use super::attestation::{self, Attestation};
use super::key::PublicKey;
use super::{Error, Sign, Subject, Verified, sign, verify};
use crate::copy::{self, Origin, unguarded};
use crate::error::Result;
use crate::progress::Reporter;
use crate::registry::Options;
use crate::transport::oci_layout::{LayoutSink, Out};
use crate::transport::remote::Remote;
use crate::transport::{Location, Sink, Source};

/// A location; a name alone is one of a registry.
///
/// # Errors
/// [`crate::Error::NameInvalid`].
pub fn locate(text: &str) -> Result<Location> {
    match text.split_once(':') {
        Some(("docker" | "oci" | "oci-archive" | "docker-archive" | "dir" | "store", _)) => text.parse(),
        _ => Ok(Location::Registry(crate::image::parse(text)?)),
    }
}

/// An image whose signatures can be read and made. No trust policy stands before it: it is looked at, not let in.
pub struct Place {
    origin: Origin,
    source: Box<dyn Source>,
    subject: Subject,
}

impl Place {
    /// `docker://NAME`, `oci:DIR[:NAME]`, or `oci-archive:FILE[:NAME]`, which is read only.
    ///
    /// # Errors
    /// [`Error::NoPlace`] for the other transports; those of the source.
    pub async fn open(location: Location, options: &Options, scratch: &Path) -> Result<Self> {
        if let Location::DockerArchive { .. } | Location::Dir { .. } | Location::Store(_) = location {
            return Err(no_place(&location));
        }
        let subject = Subject::of(&location).ok_or_else(|| no_place(&location))?;
        let origin = Origin { location, registry: options.clone() };
        let reporter = Reporter::silent();
        let source = unguarded(&origin, true, copy::Place { store: None, scratch, reporter: &reporter }).await?;
        Ok(Self { origin, source, subject })
    }

    /// The name that a signature vouches for when none is given; a layout's image has none.
    #[must_use]
    pub fn identity(&self) -> Option<String> {
        self.subject.reference.as_ref().map(|reference| match reference.digest() {
            // Whoever asks by digest is content with any name of the repository.
            Some(_) => reference.name(),
            None => reference.to_string(),
        })
    }

    /// Signs the image. Gives the digests that were signed.
    ///
    /// # Errors
    /// [`Error::NoPlace`] for an archive; those of [`sign`].
    pub async fn sign(&self, wanted: &Sign<'_>) -> Result<Vec<Digest>> {
        match &self.origin.location {
            Location::Registry(reference) => {
                let sink = Remote::open(reference, &self.origin.registry).await?;
                sign(self.source.as_ref(), &sink as &dyn Sink, wanted).await
            }
            Location::OciLayout { path, .. } => {
                let sink = LayoutSink::new(Out::dir(path)?);
                let signed = sign(self.source.as_ref(), &sink, wanted).await;
                sink.close().await?;
                signed
            }
            _ => Err(no_place(&self.origin.location)),
        }
    }

    /// Finds a signature that counts; see [`verify`].
    ///
    /// # Errors
    /// [`Error::Unverified`]; those of the source.
    pub async fn verify(&self, keys: &[PublicKey], identity: Option<&str>) -> Result<Verified> {
        verify(self.source.as_ref(), &self.subject, keys, identity).await
    }

    /// Statements about the image; see [`attestation::list`].
    ///
    /// # Errors
    /// Those of the source.
    pub async fn attestations(&self, keys: &[PublicKey], predicate_type: Option<&str>) -> Result<Vec<Attestation>> {
        let mut all = attestation::list(self.source.as_ref(), keys).await?;
        all.retain(|one| predicate_type.is_none_or(|wanted| wanted == one.predicate_type));
        Ok(all)
    }
}

fn no_place(location: &Location) -> crate::Error {
    Error::NoPlace { place: location.to_string() }.into()
}
