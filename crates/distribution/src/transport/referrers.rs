//! What belongs to an image and goes along with it: manifests that name it as their subject, those that name these in turn, and
//! what cosign keeps under tags made of the image's digest.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

use super::copy::{Copied, DEPTH_MAX, Select, bring, copy, describe, fetch};
use super::{Sink, Source};
use crate::error::{Error, Result};
use crate::progress::Reporter;
use crate::registry::RawManifest;
use crate::trust::{COMPANIONS, companion_tag};

/// A manifest that belongs to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The manifest.
    pub manifest: Descriptor,
    /// Cosign's tag; none: it is found by its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// Copies an image as [`copy`] does, and with `referrers` what belongs to it.
///
/// # Errors
/// Those of both.
pub async fn transfer(
    source: &dyn Source,
    sink: &dyn Sink,
    select: &Select,
    referrers: bool,
    reporter: &Reporter,
) -> Result<Copied> {
    let mut copied = copy(source, sink, select, reporter).await?;
    if referrers {
        follow(source, sink, &mut copied, reporter).await?;
    }
    Ok(copied)
}

/// Copies what belongs to the images that were copied, between the copy and the sink's end. `copied` says what that was.
///
/// # Errors
/// Those of the two sides; [`Error::NameInvalid`] where such things are not kept.
async fn follow(source: &dyn Source, sink: &dyn Sink, copied: &mut Copied, reporter: &Reporter) -> Result<()> {
    let images = copied.images.iter().map(|image| &image.descriptor.digest);
    let mut digests: Vec<Digest> = images.chain([&copied.root.digest]).cloned().collect();
    digests.sort();
    digests.dedup();
    let job = Job { source, sink, reporter };
    for digest in digests {
        job.referrers(&digest, 1, &mut copied.attached).await?;
        for kind in COMPANIONS {
            let tag = companion_tag(&digest, kind);
            if let Some(raw) = source.sibling(&tag).await? {
                job.one(raw, Some(tag), &mut copied.attached).await?;
            }
        }
    }
    Ok(())
}

struct Job<'a> {
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    reporter: &'a Reporter,
}

impl Job<'_> {
    fn referrers<'b>(
        &'b self,
        digest: &'b Digest,
        depth: usize,
        done: &'b mut Vec<Attached>,
    ) -> BoxFuture<'b, Result<()>> {
        async move {
            for entry in self.source.referrers(digest).await? {
                if done.iter().any(|known| known.tag.is_none() && known.manifest.digest == entry.digest) {
                    continue;
                }
                let raw = fetch(self.source, &entry, &self.source.describe()).await?;
                self.one(raw, None, done).await?;
                if depth < DEPTH_MAX {
                    self.referrers(&entry.digest, depth + 1, done).await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    async fn one(&self, raw: RawManifest, tag: Option<String>, done: &mut Vec<Attached>) -> Result<()> {
        let copied = bring(self.source, raw, self.sink, &Select::All, self.reporter).await?;
        if !self.sink.attach(&copied.root, tag.as_deref()).await? {
            return Err(no_place(&self.source.describe()));
        }
        done.push(Attached { manifest: describe(&copied.root), tag });
        Ok(())
    }
}

/// Where nothing is kept beside an image.
pub(crate) fn no_place(name: &str) -> Error {
    let problem = "referrers are kept by docker://, oci:, oci-archive: and store: only".into();
    Error::NameInvalid { what: "place of referrers", name: name.into(), problem }
}
