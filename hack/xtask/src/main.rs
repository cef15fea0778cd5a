//! The logic behind `hack/dev`: code generation, checks that read the tree, the demo, benchmarks, packaging.
mod bench;
mod cargo;
mod conform;
mod demo;
mod dist;
mod guards;
mod layers;
mod licences;
mod lint;
mod proto;
mod roadmap;
mod vm;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["proto"] => proto::update(),
        ["proto", "--check"] => proto::check(),
        ["proto", "--release"] => lint::release(),
        ["lint"] => lint::check(),
        ["layers"] => layers::check(),
        ["licences"] => licences::check(),
        ["roadmap"] => roadmap::check(),
        ["bench", names @ ..] => bench::run(names),
        ["conform", words @ ..] => conform::run(words),
        ["guards", names @ ..] => guards::run(names),
        ["demo"] => demo::run("pier-runtime"),
        ["demo", runtime] => demo::run(runtime),
        ["vm", names @ ..] => vm::run(names),
        ["dist"] => dist::run().map(|_| ()),
        other => bail!("unknown task {other:?}; see `hack/dev help`"),
    }
}
