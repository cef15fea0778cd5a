//! A small registry in memory and files that keeps to the specification where docker's does not: an upload whose PATCH broke
//! goes on where it broke.
use super::server::{Answer, Ask, Server, answer};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub fn start(dir: &Path) -> std::io::Result<Server> {
    let dir = dir.to_path_buf();
    std::fs::create_dir_all(&dir)?;
    let manifests: Mutex<HashMap<String, (String, Vec<u8>)>> = Mutex::default();
    Server::start(move |ask| {
        let path = ask.path.clone();
        let name = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_string();
        match () {
            () if path.contains("/manifests/") => manifest(ask, &path, &manifests),
            () if path.contains("/blobs/uploads/") => upload(ask, &path, &dir.join(format!("up-{name}")), &dir),
            () if path.contains("/blobs/") => {
                std::fs::read(dir.join(&name)).map_or_else(|_| answer(404, ""), |b| answer(200, b))
            }
            () => answer(if path == "/v2/" { 200 } else { 404 }, ""),
        }
    })
}

fn manifest(ask: &mut Ask<'_>, path: &str, all: &Mutex<HashMap<String, (String, Vec<u8>)>>) -> Answer {
    let Ok(mut all) = all.lock() else { return answer(500, "") };
    if ask.method == "PUT" {
        let mut bytes = Vec::new();
        let _ = ask.body.read_to_end(&mut bytes);
        all.insert(path.into(), (ask.header("content-type").into(), bytes));
        return answer(201, "");
    }
    all.get(path).map_or_else(|| answer(404, ""), |(kind, bytes)| answer(200, bytes.clone()).with("Content-Type", kind))
}

fn upload(ask: &mut Ask<'_>, path: &str, file: &PathBuf, dir: &Path) -> Answer {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    let size = |file: &Path| file.metadata().map_or(0, |meta| meta.len());
    let at = path.split('?').next().unwrap_or_default().to_string();
    match ask.method.as_str() {
        "POST" => {
            let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = std::fs::write(dir.join(format!("up-{id}")), "");
            answer(202, "").with("Location", format!("{at}{id}"))
        }
        "PATCH" => {
            let begins = ask.header("content-range").split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            if begins != size(file) {
                return answer(416, "")
                    .with("Location", at)
                    .with("Range", format!("0-{}", size(file).saturating_sub(1)));
            }
            let Ok(mut out) = std::fs::File::options().append(true).open(file) else { return answer(404, "") };
            let mut buffer = [0; 64 << 10];
            while let Ok(read @ 1..) = ask.body.read(&mut buffer) {
                let _ = out.write_all(&buffer[..read]);
            }
            answer(202, "").with("Location", at).with("Range", format!("0-{}", size(file).saturating_sub(1)))
        }
        "PUT" => {
            let digest = path.split("digest=").nth(1).unwrap_or_default().replace("%3A", ":");
            let bytes = std::fs::read(file).unwrap_or_default();
            if oci::Digest::of(&bytes).as_str() != digest {
                return answer(400, "wrong digest");
            }
            let _ = std::fs::rename(file, dir.join(digest));
            answer(201, "")
        }
        _ if file.exists() => {
            answer(204, "").with("Location", at).with("Range", format!("0-{}", size(file).saturating_sub(1)))
        }
        _ => answer(404, ""),
    }
}
