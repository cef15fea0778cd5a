//! runc's bats files: each in namespaces of its own, two at a time, with a limit per case.
use super::isolated::Isolated;
use super::verdict::{Results, Verdict, tap};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One case takes up to 12 s with runc on a busy machine. bats' own limit is a job in the case's shell, which cases that wait
/// for all their jobs would wait for: so ours is the time without a new result.
const LIMIT: Duration = Duration::from_secs(60);
const JOBS: usize = 2;

/// Runs the suite of the checkout `source` against `runtime`.
pub fn run(source: &Path, runtime: &Path, only: Option<&str>) -> Result<Results> {
    ensure!(source.join("tests/cmd/_bin/recvtty").is_file(), "{}: make test-binaries first", source.display());
    let place = Place::new(runtime)?;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(source.join("tests/integration"))?.flatten().map(|e| e.path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "bats") && only.is_none_or(|o| stem(f).contains(o)));
    files.sort();
    files.reverse();
    let (files, results) = (Mutex::new(files), Mutex::new(Results::new()));
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(file) = files.lock().ok().and_then(|mut f| f.pop()) {
                let found = run_file(&place, &file).with_context(|| stem(&file))?;
                let failed: Vec<_> =
                    found.iter().filter(|(_, v)| matches!(v, Verdict::Failed(_))).map(|(c, _)| c).collect();
                println!("   {}: {} cases, not ok: {failed:?}", stem(&file), found.len());
                if let Ok(mut all) = results.lock() {
                    all.extend(found.into_iter().map(|(case, v)| (format!("{}: {case}", stem(&file)), v)));
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..JOBS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    Ok(results.into_inner()?)
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Programs as the suite wants to find them: the runtime by the name `runc`, and what answers `go env GOARCH`.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new(runtime: &Path) -> Result<Self> {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = PathBuf::from(format!("/var/tmp/conform-bin-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        symlink(runtime, dir.join("runc"))?;
        std::fs::write(dir.join("go"), "#!/bin/sh\necho amd64\n")?;
        std::fs::set_permissions(dir.join("go"), std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// All cases of a file. What failed gets a second chance: some helpers of the suite are raced on a busy machine.
fn run_file(place: &Place, file: &Path) -> Result<Results> {
    let all = cases(&std::fs::read_to_string(file)?).into_iter().collect();
    let mut results = run_cases(place, file, all)?;
    let failed = results.iter().filter(|(_, v)| matches!(v, Verdict::Failed(_))).map(|(c, _)| c.clone()).collect();
    results.extend(run_cases(place, file, failed)?);
    Ok(results)
}

/// Some cases of a file. One that hangs is failed, and the file goes on behind it in new namespaces.
fn run_cases(place: &Place, file: &Path, mut left: BTreeSet<String>) -> Result<Results> {
    let mut results = Results::new();
    while !left.is_empty() {
        let before = left.len();
        for (case, verdict) in run_once(place, file, &left)? {
            left.remove(&case);
            results.insert(case, verdict);
        }
        if left.len() == before {
            results.extend(std::mem::take(&mut left).into_iter().map(|c| (c, Verdict::Failed("did not run\n".into()))));
        }
    }
    Ok(results)
}

/// Runs the cases in `wanted` until their end, or until one of them hangs.
fn run_once(place: &Place, file: &Path, wanted: &BTreeSet<String>) -> Result<Vec<(String, Verdict)>> {
    let pattern = format!("^({}) ?$", wanted.iter().map(|c| escaped(c)).collect::<Vec<_>>().join("|"));
    let (bin, file_name) = (quoted(&place.dir.to_string_lossy()), quoted(&file.to_string_lossy()));
    let script = format!("PATH={bin}:$PATH exec bats --tap -f {} {file_name}", quoted(&pattern));
    let mut run = Isolated::start(&script, &[("RUNC", &place.dir.join("runc"))])?;
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let ended = run.ended()?;
        let mut cases = tap(&run.output());
        if cases.len() > seen {
            (seen, since) = (cases.len(), Instant::now());
        }
        if ended || cases.len() == wanted.len() {
            return Ok(cases);
        }
        if since.elapsed() > LIMIT {
            // bats runs them in the file's order.
            let text = std::fs::read_to_string(file)?;
            let hung =
                self::cases(&text).into_iter().find(|c| wanted.contains(c) && !cases.iter().any(|(n, _)| n == c));
            cases.extend(hung.map(|c| (c, Verdict::Failed(format!("no end within {LIMIT:?}\n")))));
            return Ok(cases);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The names of the cases in a bats file.
fn cases(text: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("@test \"")?.rsplit_once('"')?.0.trim().to_owned());
    text.lines().filter_map(name).collect()
}

/// A literal in an extended regular expression.
fn escaped(text: &str) -> String {
    let special = |c: char| ".[(*+?{|^$\\)".contains(c).then_some('\\');
    text.chars().flat_map(|c| special(c).into_iter().chain([c])).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns() {
        assert_eq!(cases("@test \"a [b] \" {\n}\n@test \"it's \"c\"\" {\n"), ["a [b]", "it's \"c\""]);
        assert_eq!(escaped("a [b] (c)"), "a \\[b] \\(c\\)");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
