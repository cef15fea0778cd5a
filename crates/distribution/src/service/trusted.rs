//! The calls on signatures and attestations. Each converts and calls what the verb of that name calls.

use api::distribution::v1 as pb;

use super::locations::Ground;
use crate::error::{Error, Result};
use crate::trust::key::{PrivateKey, PublicKey};
use crate::trust::place::{Place, locate};
use crate::trust::{Form, Sign};

fn keys(given: &[pb::PublicKey]) -> Result<Vec<PublicKey>> {
    Ok(given.iter().map(|key| PublicKey::parse(&key.pem, &key.name)).collect::<Result<_, _>>()?)
}

fn text(given: &str) -> Option<&str> {
    Some(given).filter(|text| !text.is_empty())
}

impl Ground {
    async fn vouched(&self, location: &str, registry: Option<pb::RegistryOptions>) -> Result<Place> {
        let location = super::grounded(locate(location)?)?;
        Place::open(location, &self.options(registry), self.store.root()).await
    }

    pub async fn sign(self, from: pb::SignImageRequest) -> Result<pb::SignImageResponse> {
        let key = PrivateKey::parse(&from.private_key, "of the request", from.passphrase.as_bytes())?;
        let place = self.vouched(&from.location, from.registry).await?;
        let name = text(&from.identity).map(str::to_owned).or_else(|| place.identity()).ok_or_else(|| {
            let problem = "an image of a layout has no name of its own: one is needed".into();
            Error::NameInvalid { what: "identity", name: String::new(), problem }
        })?;
        let form = if from.referrer { Form::Referrer } else { Form::Tag };
        let signed = place.sign(&Sign { key: &key, name: name.clone(), form, all: from.all }).await?;
        Ok(pb::SignImageResponse { signed: signed.iter().map(ToString::to_string).collect(), identity: name })
    }

    pub async fn verify(self, from: pb::VerifyImageRequest) -> Result<pb::VerifyImageResponse> {
        let keys = keys(&from.keys)?;
        let found = self.vouched(&from.location, from.registry).await?.verify(&keys, text(&from.identity)).await?;
        Ok(pb::VerifyImageResponse {
            digest: found.digest.to_string(),
            identity: found.name,
            key: found.key,
            place: found.place,
        })
    }

    pub async fn attestations(self, from: pb::ListAttestationsRequest) -> Result<pb::ListAttestationsResponse> {
        let keys = keys(&from.keys)?;
        let place = self.vouched(&from.location, from.registry).await?;
        let all = place.attestations(&keys, text(&from.predicate_type)).await?;
        let attestations = all.into_iter().map(|one| pb::Attestation {
            predicate_type: one.predicate_type,
            subject: one.subject.to_string(),
            names_subject: one.names_subject,
            signed: one.signed,
            verified_by: one.verified_by.unwrap_or_default(),
            place: one.place,
            digest: one.digest.to_string(),
            size_bytes: one.size_bytes.cast_signed(),
        });
        Ok(pb::ListAttestationsResponse { attestations: attestations.collect() })
    }
}
