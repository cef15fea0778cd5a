//! `pier pull`

use anyhow::ensure;
use api::distribution::v1::{ListTagsRequest, PullRequest, RegistryOptions, pull_response};

use crate::client::{Answer, Client, filled, next};
use crate::commands::say;
use crate::flags::config::platform;
use crate::show::image::familiar_reference;
use crate::show::progress::Shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME[:TAG] or NAME@DIGEST
    reference: String,
    /// Each tag that the registry has
    #[arg(short, long)]
    all_tags: bool,
    /// os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Only print the name
    #[arg(short, long)]
    quiet: bool,
    /// Also what belongs to the image: signatures, attestations
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    registry: Registry,
}

/// How a registry is reached.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Registry {
    /// Credentials file instead of ~/.docker/config.json
    #[arg(long, value_name = "FILE")]
    authfile: Option<std::path::PathBuf>,
    /// Plain HTTP
    #[arg(long)]
    plain_http: bool,
    /// Do not check the registry's certificate
    #[arg(long)]
    tls_skip_verify: bool,
    /// The same, and plain HTTP from a registry that speaks no TLS
    #[arg(long)]
    insecure: bool,
}

impl Registry {
    /// As the protocol has them; the credentials file is this user's, not the engine's.
    pub fn options(&self) -> anyhow::Result<RegistryOptions> {
        let file = self.authfile.as_deref().map(std::path::absolute).transpose()?.or_else(|| {
            let directory = std::env::var_os("DOCKER_CONFIG").map(std::path::PathBuf::from);
            let home = || Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
            directory.or_else(home).map(|directory| directory.join("config.json"))
        });
        Ok(RegistryOptions {
            credentials: None,
            auth_file: file.map(|file| file.display().to_string()).unwrap_or_default(),
            plain_http: self.plain_http,
            tls_skip_verify: self.tls_skip_verify,
            insecure: self.insecure,
        })
    }
}

/// A name that stands for a whole repository.
pub fn tagless(text: &str) -> anyhow::Result<oci::Reference> {
    let reference: oci::Reference = text.parse()?;
    ensure!(is_tagless(text, &reference), "--all-tags takes a name without a tag or digest, not {text}");
    Ok(reference)
}

/// What was left out became "latest".
fn is_tagless(text: &str, reference: &oci::Reference) -> bool {
    reference.digest().is_none() && !text.contains(&format!(":{}", reference.tag().unwrap_or("latest")))
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if self.all_tags {
            return self.all(client).await;
        }
        let reference: oci::Reference = self.reference.parse()?;
        if !self.quiet && is_tagless(&self.reference, &reference) {
            eprintln!("Using default tag: {}", reference.tag().unwrap_or("latest"));
        }
        self.one(client, &self.reference).await?;
        say(reference)?;
        Ok(0)
    }

    /// Each tag that the registry has.
    async fn all(self, client: &Client) -> anyhow::Result<u8> {
        let name = tagless(&self.reference)?;
        let request = ListTagsRequest { repository: self.reference.clone(), registry: Some(self.registry.options()?) };
        for tag in client.distribution().await?.list_tags(request).await.answer()?.tags {
            self.one(client, &format!("{}:{tag}", name.name())).await?;
        }
        say(name.name())?;
        Ok(0)
    }

    async fn one(&self, client: &Client, name: &str) -> anyhow::Result<()> {
        let request = PullRequest {
            reference: name.to_owned(),
            platform: self.platform.as_deref().map(platform).transpose()?,
            registry: Some(self.registry.options()?),
            referrers: self.referrers,
            ..Default::default()
        };
        let mut shown = Shown::new(self.quiet);
        let mut stream = client.distribution().await?.pull(request).await.answer()?;
        let mut result = None;
        while let Some(message) = next(&mut stream).await? {
            match message.payload {
                Some(pull_response::Payload::Progress(progress)) => shown.update(&progress),
                Some(pull_response::Payload::Result(done)) => result = Some(done),
                None => {}
            }
        }
        drop(shown);
        let result = filled(result, "image")?;
        if !self.quiet {
            eprintln!("Digest: {}", result.digest);
            let word = if result.changed { "Downloaded newer image" } else { "Image is up to date" };
            eprintln!("Status: {word} for {}", familiar_reference(name));
        }
        Ok(())
    }
}
