//! Where a built filesystem goes: into the store as an image, into archives, into a directory.

use oci::ImageConfig;
use std::path::Path;
use tokio_util::sync::CancellationToken;

use crate::build::{Built, Export, ExportKind};
use crate::error::Error;
use crate::fs::copy::{CopyOptions, copy};
use crate::fs::ignore::Ignore;
use crate::fs::root::Root;
use crate::fs::source::{Select, Source};
use crate::layer::Chain;
use crate::progress::{Event, Sink, Status, VertexUpdate, now_nanos};
use crate::store::{Image, Store};
use crate::work::Work;

/// Writes outputs.
pub(crate) struct Exporter<'a> {
    pub(crate) store: &'a Store,
    pub(crate) work: &'a Work,
    pub(crate) sink: &'a Sink,
    pub(crate) cancel: &'a CancellationToken,
    /// Names of the image.
    pub(crate) names: &'a [String],
}

impl Exporter<'_> {
    /// Writes all of them; without any, an image.
    pub(crate) async fn all(&self, exports: &[Export], chain: &Chain, config: &ImageConfig) -> Result<Built, Error> {
        let files_only = |export: &Export| matches!(export.kind, ExportKind::Local | ExportKind::Tar);
        let mut image = None;
        if exports.is_empty() || !exports.iter().all(files_only) {
            image = Some(self.step("exporting to image", self.image(chain, config)).await?);
        }
        for export in exports {
            match export.kind {
                ExportKind::Image => {}
                ExportKind::OciArchive => self.save(image.as_ref(), export, "oci-archive").await?,
                ExportKind::DockerArchive => self.save(image.as_ref(), export, "docker-archive").await?,
                ExportKind::OciDir => self.save(image.as_ref(), export, "oci-dir").await?,
                ExportKind::Local => self.step("exporting files", self.local(chain, &export.path)).await?,
                ExportKind::Tar => self.step("exporting tar", self.tar(chain, &export.path)).await?,
            }
            if export.push {
                self.push().await?;
            }
        }
        let Some(image) = image else { return Ok(Built::default()) };
        Ok(Built {
            image_id: image.id,
            manifest_digest: image.manifest,
            names: self.names.to_vec(),
            ..Built::default()
        })
    }

    async fn image(&self, chain: &Chain, config: &ImageConfig) -> Result<Image, Error> {
        let config = serde_json::to_vec(config).map_err(|error| Error::Panic(error.to_string()))?;
        self.store.create_image(config, chain, self.names, self.work.id()).await
    }

    async fn save(&self, image: Option<&Image>, export: &Export, format: &str) -> Result<(), Error> {
        let by_id = image.map(|image| vec![image.id.clone()]).unwrap_or_default();
        let references = if self.names.is_empty() { by_id } else { self.names.to_vec() };
        self.step(&format!("exporting to {format}"), self.store.save(references, &export.path, format, self.sink)).await
    }

    async fn push(&self) -> Result<(), Error> {
        if self.names.is_empty() {
            return Err(Error::Request("an image without a name cannot be pushed".into()));
        }
        for name in self.names {
            self.step(&format!("pushing {name}"), self.store.push(name, self.sink)).await?;
        }
        Ok(())
    }

    async fn tar(&self, chain: &Chain, path: &Path) -> Result<(), Error> {
        self.work.mount("export-tar", chain, true).await?;
        self.store.export(&self.work.key("export-tar"), path).await
    }

    async fn local(&self, chain: &Chain, path: &Path) -> Result<(), Error> {
        let mounted = self.work.mount("export-local", chain, true).await?;
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let (path, cancel) = (path.to_owned(), self.cancel.clone());
        let copied = tokio::task::spawn_blocking(move || {
            let source = Source {
                root: Root::open(&mounted)?,
                ignore: Ignore::default(),
                own_by_root: false,
                place: "the built filesystem".into(),
            };
            let everything = Select { wildcards: false, allow_empty: false, follow: false };
            let matches = source.select("/", everything)?;
            let options = CopyOptions { contents: true, ..CopyOptions::default() };
            copy(&source, &matches, &Root::open(&path)?, "/", &options, &cancel)
        });
        copied.await.map_err(|error| Error::Panic(error.to_string()))?
    }

    /// Shows an export among the steps of the build.
    async fn step<T>(&self, name: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let started = now_nanos();
        self.tell(name, Status::Started, "", started);
        let result = work.await;
        match &result {
            Ok(_) => self.tell(name, Status::Done, "", started),
            Err(error) => self.tell(name, Status::Failed, &error.to_string(), started),
        }
        result
    }

    fn tell(&self, name: &str, status: Status, error: &str, started: i64) {
        self.sink.send(Event::Vertex(VertexUpdate {
            digest: oci::Digest::of(name.as_bytes()).to_string(),
            name: name.to_owned(),
            inputs: Vec::new(),
            status,
            error: error.to_owned(),
            started,
            completed: if status == Status::Started { 0 } else { now_nanos() },
        }));
    }
}
