//! Which images are let in: a policy file in the shape of containers-policy.json(5), sigstore signatures made with keys, and in-toto
//! attestations.
//!
//! - [`Policy`]: the file, and what it requires of an image by its name; a [`Door`] puts it in front of a source, so that
//!   nothing of an image that is not let in is fetched but its manifest and its signatures;
//! - [`key`]: public and private keys as cosign keeps them;
//! - `evidence`: signatures of an image, wherever they lie: the tag `sha256-<hex>.sig` beside it, or referrers;
//! - [`sign()`], [`verify()`]: make and check signatures;
//! - [`attestation`]: statements about an image, listed and verified.
//!
//! No network is needed but the one that the image comes by: keys are files, and nobody else is asked.

mod admit;
pub mod attestation;
mod dsse;
mod error;
mod evidence;
mod identity;
pub mod key;
mod payload;
pub mod place;
mod policy;
mod scope;
mod sign;

use std::path::{Path, PathBuf};

pub use admit::Door;
pub use error::Error;
pub(crate) use evidence::{COMPANIONS, is_companion, tag as companion_tag};
pub use policy::Policy;
pub use scope::Subject;
pub use sign::{Form, Sign, Verified, sign, verify};

/// The policy that counts when none is named.
pub const DEFAULT_POLICY: &str = "/etc/pier/policy.json";

/// The policy in force: the one that is named, else the default where it exists. None: everything is let in. It is read for each
/// operation, so that a change counts at once, and a damaged file refuses images, not the tool's start.
///
/// # Errors
/// [`Error::Policy`], [`Error::Key`].
pub fn in_force(setting: &Setting) -> Result<Option<Policy>, Error> {
    let default = Path::new(DEFAULT_POLICY);
    let named = setting.as_deref().or_else(|| default.exists().then_some(default));
    named.map(Policy::load).transpose()
}

/// How operations are told: the file that a flag or `PIER_POLICY` named.
pub type Setting = Option<PathBuf>;
