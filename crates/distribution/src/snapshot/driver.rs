//! The kinds of snapshots, and which of them work here.
use super::btrfs::Btrfs;
use super::copy::Copy;
use super::erofs::Erofs;
use super::overlay::{FuseOverlayfs, Overlay};
use super::settle::{open, root_attributes, settle};
use crate::layer::{Marks, Part, Prepared, Row, Stamp, View};
use crate::{Error, Result, Store};
use std::path::Path;
use std::sync::OnceLock;
use sys::mount::Mount;

/// One way to make a filesystem of layers.
pub(crate) trait Driver: Sync {
    /// Its name for people and records.
    fn name(&self) -> &'static str;

    /// Tries it in the store's directory; else, why it does not work.
    fn probe(&self, store: &Store) -> std::result::Result<(), String>;

    /// How a snapshot's own part says what it hides, when it has only what differs from the layers; `None`: it is the whole
    /// tree, to be compared with them.
    fn marks(&self, store: &Store) -> Option<Marks>;

    /// Layers that it can take at once.
    fn max_layers(&self) -> usize {
        usize::MAX
    }

    /// Makes `fs`, and what else it needs, in the directory that becomes the snapshot's.
    fn fill(&self, chain: &Chain<'_>, to: &Path) -> Result<Prepared>;

    /// What mounting it needs and is not there, for people; [`Self::mount`] makes it.
    fn lacking(&self, _parts: &[Part]) -> Option<String> {
        None
    }

    /// How it is mounted: layers (topmost first), the snapshot's directory. What that needs and is not there is made.
    fn mount(&self, store: &Store, parts: &[Part], dir: &Path, read_only: bool) -> Result<Mount>;
}

/// In the order in which they are tried: no copy first, then what needs no program, then what always works. The rest is only
/// for who asks.
const DRIVERS: [&dyn Driver; KINDS] = [&Overlay, &Btrfs, &FuseOverlayfs, &Copy, &Erofs];
const KINDS: usize = 5;
const TRIED: usize = 4;

/// The layers of a snapshot to be, lowest first, and their directories, topmost first, as far as they show through.
pub(crate) struct Chain<'a> {
    pub store: &'a Store,
    pub layers: &'a [Row],
    pub parts: &'a [Part],
}

impl Chain<'_> {
    /// Writes into `fs`, a directory of the snapshot's own part, what the layers leave to be settled.
    pub(super) fn settle(&self, fs: &Path) -> Result<Prepared> {
        let root = open(fs)?;
        let mut prepared = settle(self.layers, self.parts, &View::open(self.parts)?, &root)?;
        root_attributes(self.layers, self.parts, &root)?;
        let stat = rustix::fs::fstat(&root).map_err(Error::io("inspect", fs))?;
        prepared.insert(Vec::new(), Stamp::of(&stat));
        Ok(prepared)
    }
}

/// What probing has found, each driver when it is first asked for.
#[derive(Default)]
pub(crate) struct Probes([OnceLock<std::result::Result<(), String>>; KINDS]);

impl Probes {
    fn ask(&self, index: usize, store: &Store) -> &std::result::Result<(), String> {
        self.0[index].get_or_init(|| DRIVERS[index].probe(store))
    }

    /// The first that works with so many layers.
    pub(crate) fn choose(&self, store: &Store, layers: usize) -> &'static dyn Driver {
        let works = |index: &usize| layers <= DRIVERS[*index].max_layers() && self.ask(*index, store).is_ok();
        (0..TRIED).find(works).map_or(&Copy, |index| DRIVERS[index])
    }

    /// The one that is asked for.
    pub(crate) fn force(&self, store: &Store, name: &str, layers: usize) -> Result<&'static dyn Driver> {
        let Some(index) = DRIVERS.iter().position(|driver| driver.name() == name) else {
            let expected = "overlay, btrfs, fuse-overlayfs, copy or erofs";
            return Err(Error::InvalidName { what: "snapshotter", name: name.into(), expected });
        };
        let unavailable = |problem| Err(Error::SnapshotterUnavailable { snapshotter: name.into(), problem });
        let max = DRIVERS[index].max_layers();
        match self.ask(index, store) {
            Err(problem) => unavailable(problem.clone()),
            Ok(()) if layers > max => unavailable(format!("{layers} layers are more than the {max} it can stack")),
            Ok(()) => Ok(DRIVERS[index]),
        }
    }

    /// Whether one works here.
    pub(crate) fn works(&self, store: &Store, name: &str) -> bool {
        DRIVERS.iter().position(|driver| driver.name() == name).is_some_and(|index| self.ask(index, store).is_ok())
    }

    /// Why those that do not work do not.
    pub(crate) fn refusals(&self, store: &Store) -> Vec<String> {
        let why = |index: usize| Some(format!("{}: {}", DRIVERS[index].name(), self.ask(index, store).as_ref().err()?));
        (0..KINDS).filter_map(why).collect()
    }
}

/// The driver of a snapshot that exists; a record of another release may name one that is unknown.
pub(crate) fn by_name(name: &str) -> Option<&'static dyn Driver> {
    DRIVERS.iter().find(|driver| driver.name() == name).copied()
}

/// Runs in a thread whose mounts nobody else sees.
pub(super) fn privately<T: Send>(work: impl FnOnce() -> std::io::Result<T> + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            sys::mount::private_namespace()?;
            work()
        });
        inside.join().unwrap_or_else(|_| Err(std::io::Error::other("the probing thread broke")))
    })
}
