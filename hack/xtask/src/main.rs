//! The logic behind `hack/dev`: code generation, and checks that read the tree.
mod proto;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["proto"] => proto::update(),
        ["proto", "--check"] => proto::check(),
        other => bail!("unknown task {other:?}; tasks: proto [--check]"),
    }
}
