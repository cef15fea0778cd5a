//! `pier manifest inspect`

use anyhow::{Context, ensure};
use api::distribution::v1::{
    ImageIndex, InspectLocationRequest, InspectLocationResponse, ListIndexesRequest, Origin, RegistryOptions,
};
use api::types::v1::{Descriptor, Platform};
use base64::Engine as _;
use oci::Reference;
use oci::media_type::{INDEX, is_index};
use serde_json::{Value, json};

use super::manifest::remote;
use super::pull::Registry;
use crate::client::{Answer, Client};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// [LIST] MANIFEST: an index that is being put together or a name at a registry; with LIST, an image of that index
    #[arg(required = true, num_args = 1..=2, value_names = ["LIST", "MANIFEST"])]
    names: Vec<String>,
    /// Also the descriptors and bytes, of an index those of its images
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    registry: Registry,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let look = Look { client, registry: self.registry.options()? };
        let document = match self.names.as_slice() {
            [list, name] => {
                let index = look.list(list).await?.with_context(|| format!("No such manifest: {list}"))?;
                let found = look.at(name, true).await?;
                let member = index.manifests.iter().any(|entry| entry.digest == found.digest);
                ensure!(member, "No such manifest: {name} is not in {list}");
                look.shown(name, found, self.verbose).await?
            }
            [name] => match look.list(name).await? {
                Some(index) if self.verbose => look.members(name, &index).await?,
                Some(index) => index_document(&index),
                None => look.shown(name, look.at(name, true).await?, self.verbose).await?,
            },
            _ => Value::Null,
        };
        console::print_json(&document)?;
        Ok(0)
    }
}

struct Look<'a> {
    client: &'a Client,
    registry: RegistryOptions,
}

impl Look<'_> {
    /// The index of that name that is being put together here.
    async fn list(&self, name: &str) -> anyhow::Result<Option<ImageIndex>> {
        let wanted: Reference = name.parse()?;
        let all = self.client.distribution().await?.list_indexes(ListIndexesRequest {}).await.answer()?.indexes;
        Ok(all.into_iter().find(|index| index.name.parse::<Reference>().is_ok_and(|known| known == wanted)))
    }

    async fn at(&self, name: &str, root_only: bool) -> anyhow::Result<InspectLocationResponse> {
        let origin = Origin { location: remote(name)?, registry: Some(self.registry.clone()) };
        let request = InspectLocationRequest { origin: Some(origin), root_only, ..Default::default() };
        self.client.distribution().await?.inspect_location(request).await.answer()
    }

    async fn shown(&self, name: &str, found: InspectLocationResponse, verbose: bool) -> anyhow::Result<Value> {
        let document: Value = serde_json::from_slice(&found.raw).with_context(|| format!("{name} is no manifest"))?;
        if !verbose {
            return Ok(document);
        }
        if !is_index(&found.media_type) {
            // Its config tells the platform.
            let whole = self.at(name, false).await?;
            let config: Value = serde_json::from_slice(&whole.config).unwrap_or_default();
            let platform = json!({"architecture": config["architecture"], "os": config["os"]});
            let known = config["os"].is_string();
            return member(&name.parse::<Reference>()?.to_string(), &found, known.then_some(platform));
        }
        let entries = document["manifests"].as_array().cloned().unwrap_or_default();
        let named = |entry: &Value| Some((entry["digest"].as_str()?.to_owned(), entry.get("platform").cloned()));
        self.each(name, entries.iter().filter_map(named).collect()).await
    }

    async fn members(&self, name: &str, index: &ImageIndex) -> anyhow::Result<Value> {
        let named = |entry: &Descriptor| (entry.digest.clone(), entry.platform.as_ref().map(platform_document));
        self.each(name, index.manifests.iter().map(named).collect()).await
    }

    /// The images of an index, one by one.
    async fn each(&self, name: &str, entries: Vec<(String, Option<Value>)>) -> anyhow::Result<Value> {
        let repository = name.parse::<Reference>()?.name();
        let mut all = Vec::new();
        for (digest, platform) in entries {
            let name = format!("{repository}@{digest}");
            all.push(member(&name, &self.at(&name, true).await?, platform)?);
        }
        Ok(all.into())
    }
}

/// Docker's long form of one manifest.
fn member(name: &str, found: &InspectLocationResponse, platform: Option<Value>) -> anyhow::Result<Value> {
    let kind = if found.media_type.contains(".docker.") { "SchemaV2Manifest" } else { "OCIManifest" };
    let mut descriptor = json!({"mediaType": found.media_type, "digest": found.digest, "size": found.raw.len()});
    if let Some(platform) = platform {
        descriptor["platform"] = platform;
    }
    let manifest: Value = serde_json::from_slice(&found.raw).with_context(|| format!("{name} is no manifest"))?;
    let raw = base64::engine::general_purpose::STANDARD.encode(&found.raw);
    let mut document = json!({"Ref": name, "Descriptor": descriptor, "Raw": raw});
    document[kind] = manifest;
    Ok(document)
}

/// What would be pushed.
fn index_document(index: &ImageIndex) -> Value {
    let entry = |entry: &Descriptor| {
        let mut document = json!({"mediaType": entry.media_type, "size": entry.size, "digest": entry.digest});
        if let Some(platform) = &entry.platform {
            document["platform"] = platform_document(platform);
        }
        if !entry.annotations.is_empty() {
            document["annotations"] = json!(entry.annotations);
        }
        document
    };
    let manifests: Vec<Value> = index.manifests.iter().map(entry).collect();
    let mut document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    if !index.annotations.is_empty() {
        document["annotations"] = json!(index.annotations);
    }
    document
}

fn platform_document(platform: &Platform) -> Value {
    let mut document = json!({"architecture": platform.architecture, "os": platform.os});
    for (key, value) in [("variant", &platform.variant), ("os.version", &platform.os_version)] {
        if !value.is_empty() {
            document[key] = value.as_str().into();
        }
    }
    if !platform.os_features.is_empty() {
        document["os.features"] = json!(platform.os_features);
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_shown_as_it_is_pushed() {
        let platform =
            Platform { os: "linux".into(), architecture: "arm64".into(), variant: "v8".into(), ..Default::default() };
        let entry = Descriptor {
            media_type: "m".into(),
            digest: "d".into(),
            size: 3,
            platform: Some(platform),
            ..Default::default()
        };
        let document = index_document(&ImageIndex { manifests: vec![entry], ..Default::default() });
        assert_eq!(document["mediaType"], INDEX);
        assert_eq!(
            document["manifests"][0]["platform"],
            json!({"architecture": "arm64", "os": "linux", "variant": "v8"})
        );
        assert!(document.get("annotations").is_none());
    }
}
