//! `proto/` → committed stubs and descriptor set in `crates/api/src/gen`, by a compiler written in Rust (no protoc).
use anyhow::{Context, Result, bail};
use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};

/// Compiles every proto file and replaces the committed output.
pub fn update() -> Result<()> {
    let out = generated_dir();
    fs::create_dir_all(&out)?;
    generate(&out)
}

/// Fails when the committed output is not what the protos give now.
pub fn check() -> Result<()> {
    let fresh = std::env::temp_dir().join(format!("pier-proto-{}", std::process::id()));
    fs::create_dir_all(&fresh)?;
    let result = generate(&fresh).and_then(|()| compare(&fresh, &generated_dir()));
    fs::remove_dir_all(&fresh)?;
    result
}

/// The descriptors of all files, with comments.
pub fn descriptors() -> Result<prost_types::FileDescriptorSet> {
    let root = workspace().join("proto");
    let files = proto_files(&root)?;
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true);
    Ok(compiler.open_files(&files)?.file_descriptor_set())
}

fn generate(out: &Path) -> Result<()> {
    let set = descriptors()?;
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".pier.supervisor.v1")
        .emit_rerun_if_changed(false)
        .compile_fds(set.clone())
        .context("generate stubs")?;
    let mut bare = set;
    bare.file.iter_mut().for_each(|f| f.source_code_info = None);
    fs::write(out.join("descriptor.bin"), bare.encode_to_vec())?;
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            let ok = std::process::Command::new("rustfmt")
                .args(["--edition", "2024", "--config-path"])
                .arg(workspace())
                .arg(&path)
                .status()?
                .success();
            if !ok {
                bail!("rustfmt failed on {}", path.display());
            }
        }
    }
    Ok(())
}

fn compare(fresh: &Path, committed: &Path) -> Result<()> {
    let names = |dir: &Path| -> Result<Vec<String>> {
        let mut v: Vec<String> =
            fs::read_dir(dir)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
        v.sort();
        Ok(v)
    };
    if names(fresh)? != names(committed)? {
        bail!("generated files differ from {}: run `hack/dev proto`", committed.display());
    }
    for name in names(fresh)? {
        if fs::read(fresh.join(&name))? != fs::read(committed.join(&name))? {
            bail!("{name} is not what proto/ gives: run `hack/dev proto`");
        }
    }
    Ok(())
}

/// All `.proto` files below `root`, sorted, relative to it.
fn proto_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "proto") {
                found.push(path.strip_prefix(root)?.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn generated_dir() -> PathBuf {
    workspace().join("crates/api/src/gen")
}
