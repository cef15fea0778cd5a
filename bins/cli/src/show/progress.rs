//! Progress of pulls, pushes, saves and loads.

use api::types::v1::Progress;
use console::progress::{Mode, Renderer, Update};

/// Shows the protocol's progress messages; quiet shows none.
pub struct Shown(Renderer);

impl Shown {
    /// Bars on a terminal, lines otherwise.
    pub fn new(quiet: bool) -> Self {
        Self(Renderer::new(if quiet { Mode::None } else { Mode::Auto }))
    }

    /// One message.
    pub fn update(&mut self, progress: &Progress) {
        self.0.update(&Update {
            id: &progress.id,
            status: &progress.status,
            current: progress.current.max(0).unsigned_abs(),
            total: progress.total.max(0).unsigned_abs(),
            message: &progress.message,
        });
    }
}
