#![allow(clippy::unwrap_used)]
use super::*;
use crate::llb::Edge;
use crate::solve::{Key, KeyWriter};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Barrier;

/// What a fake vertex does: it appends its name to the joined results of its inputs.
#[derive(Default)]
struct Fake {
    name: &'static str,
    source: bool,
    fails: bool,
    /// Runs only when as many others run at the same time.
    meets: Option<Arc<Barrier>>,
    /// Runs until cancelled.
    hangs: bool,
    log: Log,
}

type Log = Arc<Mutex<Vec<String>>>;

impl Op<String> for Fake {
    fn cacheable(&self) -> bool {
        !self.source
    }

    fn key<'a>(&'a self, inputs: &'a [String]) -> BoxFuture<'a, Result<Key, Error>> {
        let key = KeyWriter::new("fake").field(self.name.as_bytes()).fields(inputs.iter().map(String::as_str)).finish();
        async move { Ok(key) }.boxed()
    }

    fn run<'a>(&'a self, inputs: &'a [String], context: &'a Context) -> BoxFuture<'a, Result<Vec<String>, Error>> {
        async move {
            self.log.lock().unwrap().push(format!("run {}", self.name));
            if let Some(barrier) = &self.meets {
                barrier.wait().await;
            }
            if self.hangs {
                context.cancel.cancelled().await;
                self.log.lock().unwrap().push(format!("undo {}", self.name));
                return Err(Error::Canceled);
            }
            if self.fails {
                return Err(Error::Unsupported("failing".into()));
            }
            Ok(vec![format!("{}({})", self.name, inputs.join(","))])
        }
        .boxed()
    }
}

#[derive(Default)]
struct Memory(Mutex<HashMap<Key, Vec<String>>>);

impl Cache<String> for Memory {
    fn lookup<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Vec<String>>, Error>> {
        async move { Ok(self.0.lock().unwrap().get(key).cloned()) }.boxed()
    }

    fn record<'a>(&'a self, key: &'a Key, _: &'a str, outputs: &'a [String]) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.0.lock().unwrap().insert(key.clone(), outputs.to_vec());
            Ok(())
        }
        .boxed()
    }
}

struct Bed {
    cache: Arc<Memory>,
    flights: Arc<Flights>,
    log: Log,
}

impl Bed {
    fn new() -> Self {
        Self { cache: Arc::default(), flights: Arc::default(), log: Log::default() }
    }

    fn fake(&self, name: &'static str) -> Fake {
        Fake { name, log: Arc::clone(&self.log), ..Fake::default() }
    }

    async fn solve(&self, tasks: Vec<Task<String>>) -> Result<Outcome<String>, Error> {
        let solver = Solver::new(self.cache.clone(), self.flights.clone(), 4);
        let (sink, cancel) = (Sink::none(), CancellationToken::new());
        let solved = solver.solve(tasks, &sink, &cancel);
        tokio::time::timeout(Duration::from_secs(10), solved).await.unwrap()
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn task(fake: Fake, inputs: &[&str]) -> Task<String> {
    let vertex = Vertex {
        digest: fake.name.into(),
        op: bollard_buildkit_proto::pb::Op::default(),
        inputs: inputs.iter().map(|name| Edge { digest: (*name).into(), index: 0 }).collect(),
        name: fake.name.into(),
        ignore_cache: false,
        location: None,
    };
    Task { vertex, op: Arc::new(fake) }
}

#[tokio::test]
async fn passes_results_on() {
    let bed = Bed::new();
    let tasks = vec![
        task(bed.fake("a"), &[]),
        task(bed.fake("b"), &["a"]),
        task(bed.fake("c"), &["a"]),
        task(bed.fake("d"), &["b", "c"]),
    ];
    let outcome = bed.solve(tasks).await.unwrap();
    assert_eq!(outcome.results["d"][0], "d(b(a()),c(a()))");
    assert_eq!((outcome.executed, outcome.cached), (4, 0));
}

#[tokio::test]
async fn runs_independent_vertices_at_once() {
    let bed = Bed::new();
    let meets = Some(Arc::new(Barrier::new(2)));
    let left = Fake { meets: meets.clone(), ..bed.fake("left") };
    let right = Fake { meets, ..bed.fake("right") };
    bed.solve(vec![task(left, &[]), task(right, &[])]).await.unwrap();
}

#[tokio::test]
async fn takes_known_results_from_the_cache() {
    let bed = Bed::new();
    let tasks = || vec![task(bed.fake("a"), &[]), task(bed.fake("b"), &["a"])];
    bed.solve(tasks()).await.unwrap();
    bed.log();
    let outcome = bed.solve(tasks()).await.unwrap();
    assert_eq!((outcome.executed, outcome.cached), (0, 2));
    assert!(bed.log().is_empty());
}

#[tokio::test]
async fn a_changed_source_reruns_what_follows() {
    let bed = Bed::new();
    let tasks = |name| {
        let mut source = task(Fake { source: true, ..bed.fake(name) }, &[]);
        source.vertex.digest = "source".into();
        vec![source, task(bed.fake("b"), &["source"])]
    };
    bed.solve(tasks("one")).await.unwrap();
    let again = bed.solve(tasks("one")).await.unwrap();
    assert_eq!((again.executed, again.cached), (0, 1));
    let changed = bed.solve(tasks("two")).await.unwrap();
    assert_eq!((changed.executed, changed.cached), (1, 0));
}

#[tokio::test]
async fn ignores_the_cache_when_told() {
    let bed = Bed::new();
    for expected in [1, 1] {
        let mut only = task(bed.fake("a"), &[]);
        only.vertex.ignore_cache = true;
        assert_eq!(bed.solve(vec![only]).await.unwrap().executed, expected);
    }
}

#[tokio::test]
async fn one_failure_cancels_the_rest() {
    let bed = Bed::new();
    let meets = Some(Arc::new(Barrier::new(2)));
    let hangs = Fake { hangs: true, meets: meets.clone(), ..bed.fake("hangs") };
    let fails = Fake { fails: true, meets, ..bed.fake("fails") };
    let tasks = vec![task(hangs, &[]), task(fails, &[]), task(bed.fake("after"), &["fails"])];
    let error = bed.solve(tasks).await.unwrap_err();
    assert_eq!(error.to_string(), "fails");
    let log = bed.log();
    assert!(log.contains(&"undo hangs".into()), "{log:?}");
    assert!(!log.contains(&"run after".into()), "{log:?}");
    assert!(bed.cache.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_same_key_runs_once() {
    let bed = Bed::new();
    let twin = |digest: &str| {
        let mut task = task(bed.fake("same"), &[]);
        task.vertex.digest = digest.into();
        vec![task]
    };
    let (one, two) = tokio::join!(bed.solve(twin("x")), bed.solve(twin("y")));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.executed + two.executed, one.cached + two.cached), (1, 1));
}

#[tokio::test]
async fn cancelling_from_outside_undoes() {
    let bed = Bed::new();
    let cancel = CancellationToken::new();
    let solver = Solver::new(bed.cache.clone() as Arc<dyn Cache<String>>, bed.flights.clone(), 4);
    let hangs = Fake { hangs: true, ..bed.fake("hangs") };
    let sink = Sink::none();
    let solved = solver.solve(vec![task(hangs, &[])], &sink, &cancel);
    let (result, ()) = tokio::join!(solved, async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cancel.cancel();
    });
    assert!(result.unwrap_err().is_canceled());
    assert_eq!(bed.log(), ["run hangs", "undo hangs"]);
}
