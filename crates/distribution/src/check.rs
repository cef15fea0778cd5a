//! Verification (skeleton).
/// One object's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Digest, layer or snapshot.
    pub object: String,
    /// None: it is sound.
    pub problem: Option<String>,
    /// It was set aside, so that a fresh pull heals.
    pub repaired: bool,
}
// pub fn run(store: &Store, repair: bool, report: impl FnMut(Finding)) -> Result<()>;
// store.rs: pub fn usage(&self) -> Result<Usage>;
// store.rs: pub fn snapshotter(&self) -> (&'static str, Vec<String> /* why not the others */);
