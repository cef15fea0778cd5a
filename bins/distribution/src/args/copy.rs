//! `copy` and `sync`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{FormatArg, Progress, Sides};

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Locations: docker://NAME[:TAG|@DIGEST], oci:DIR[:NAME|@DIGEST|:@N], oci-archive:FILE[:NAME|@DIGEST|:@N], \
    docker-archive:FILE[:NAME|:@N], dir:DIR, store:NAME. N counts the images of an archive or layout from 0."
)]
pub struct Copy {
    pub source: String,
    pub destination: String,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    /// Everything that the name stands for
    #[arg(short, long, visible_alias = "all")]
    pub all_platforms: bool,
    /// Fail rather than write manifests with other digests
    #[arg(long)]
    pub preserve_digests: bool,
    /// Also what refers to the images: signatures, attestations
    #[arg(long, visible_alias = "recursive", conflicts_with_all = ["dest_compress_format", "dest_compress_level", "format"])]
    pub referrers: bool,
    #[command(flatten)]
    pub recast: Recast,
    /// Write the digest of what arrived to a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,
    /// One more tag at the destination; may be repeated
    #[arg(long, value_name = "TAG")]
    pub additional_tag: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub registry: Sides,
    #[command(flatten)]
    pub progress: Progress,
}

/// The same image in another form.
#[derive(Debug, ClapArgs)]
pub struct Recast {
    /// Compress layers with gzip, zstd or none
    #[arg(long, value_name = "FORMAT")]
    pub dest_compress_format: Option<String>,
    /// Level of that compression: gzip 0 to 9, zstd 1 to 22
    #[arg(long, value_name = "LEVEL")]
    pub dest_compress_level: Option<i32>,
    /// Types of the manifests: oci, v2s2
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Sources: docker://REPOSITORY (all tags), docker://NAME:TAG, list:FILE (one reference a line; - is standard input), \
    yaml:FILE (as skopeo-sync), dir:DIRECTORY (a tree of dir: images), oci:DIRECTORY (all named images). \
    Destinations: docker://REGISTRY[/PATH], dir:DIRECTORY, oci:DIRECTORY, store:"
)]
pub struct Sync {
    /// Sources, then the destination
    #[arg(required = true, num_args = 2.., value_name = "SOURCE... DESTINATION")]
    pub places: Vec<String>,
    /// All platforms
    #[arg(short, long, visible_alias = "all")]
    pub all_platforms: bool,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    /// Of whole repositories: only tags that this regular expression finds
    #[arg(long, value_name = "REGEX")]
    pub tag_regex: Option<String>,
    /// Of whole repositories: not the tags that this regular expression finds
    #[arg(long, value_name = "REGEX")]
    pub tag_exclude: Option<String>,
    /// Of whole repositories: only tags that are versions of this range, such as '>=1.2 <2'
    #[arg(long, value_name = "RANGE")]
    pub tag_semver: Option<String>,
    /// Keep the registry and whole path of the source's name below the destination
    #[arg(long)]
    pub scoped: bool,
    /// Fail rather than write manifests with other digests
    #[arg(long)]
    pub preserve_digests: bool,
    /// Also what refers to the images: signatures, attestations
    #[arg(long)]
    pub referrers: bool,
    /// Go on after a failure; the exit code still tells of it
    #[arg(short, long)]
    pub keep_going: bool,
    /// Only say what would be copied
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub registry: Sides,
    #[command(flatten)]
    pub progress: Progress,
    #[command(flatten)]
    pub format: FormatArg,
}
