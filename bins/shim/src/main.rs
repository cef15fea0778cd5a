//! `pier-shim`: see the crate `shim`. Started by `pier-supervisor` only.

fn main() {
    std::process::exit(shim::run());
}
