#![allow(clippy::unwrap_used)]
use super::*;
use std::os::unix::fs::MetadataExt;

/// A directory with lower directories `layers/<n>/fs` of one file each, an upper and a work directory, and a target.
struct Trees(PathBuf);

impl Trees {
    fn new(name: &str, layers: usize) -> Self {
        let dir = std::env::temp_dir().join(format!("pier-sys-{}-{name}", std::process::id()));
        for n in 0..layers {
            let fs = dir.join("layers").join(n.to_string()).join("fs");
            std::fs::create_dir_all(&fs).unwrap();
            std::fs::write(fs.join(format!("f{n}")), b"").unwrap();
        }
        for dir in ["m", "up", "work"].map(|name| dir.join(name)) {
            std::fs::create_dir_all(dir).unwrap();
        }
        Self(dir)
    }

    fn mount(&self, layers: usize, ids: &str) -> Mount {
        let lower: Vec<PathBuf> = (0..layers).map(|n| self.0.join("layers").join(n.to_string()).join("fs")).collect();
        let (up, work) = (self.0.join("up"), self.0.join("work"));
        let mut options = overlay_options(&lower, Some((&up, &work)));
        if !ids.is_empty() {
            options.push(format!("{}{ids}", super::super::IDMAP));
        }
        Mount { fstype: "overlay".into(), source: "overlay".into(), target: PathBuf::new(), options }
    }
}

impl Drop for Trees {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// In a thread with a mount namespace of its own.
fn privately<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: an overlay mount: needs root");
        return None;
    }
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            super::super::private_namespace().unwrap();
            work()
        });
        Some(inside.join().unwrap())
    })
}

#[test]
fn options_are_read_as_they_are_written() {
    let lower = [PathBuf::from("/a:b/l"), PathBuf::from("/a:b/c,d\\e")];
    let (upper, work) = (Path::new("/a:b/u,"), Path::new("/a:b/w"));
    let mut options = overlay_options(&lower, Some((upper, work)));
    assert_eq!(options[0], "lowerdir=/a\\:b/l:/a\\:b/c\\,d\\\\e");
    options.push("index=off".into());
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    let layers = Layers::of(&words);
    assert_eq!(layers.lower, lower);
    assert_eq!(layers.upper, [("upperdir", upper.to_owned()), ("workdir", work.to_owned())]);
    assert_eq!(layers.base(), Path::new("/a:b"));
    assert_eq!(layers.options(&layers.base()), "lowerdir=l:c\\,d\\\\e,upperdir=u\\,,workdir=w,index=off");
}

/// Both ways, with names that mean something to the kernel, and longer than one fsconfig(2) takes.
#[test]
fn names_that_options_cannot_carry() {
    for name in ["plain", "a,b:c\\d=e", &"long".repeat(60)] {
        for old in [false, true] {
            let trees = Trees::new(name, 3);
            let seen = privately(|| {
                let (mount, target) = (trees.mount(3, ""), trees.0.join("m"));
                let plan = Plan::of(&mount.options).unwrap();
                if old {
                    let target = crate::fd::open_dir(&target).unwrap();
                    by_mount(&mount, &plan, &Layers::of(&plan.rest), &target, || Ok(())).unwrap();
                } else {
                    super::mount(&mount, &plan, &target).unwrap();
                }
                std::fs::write(target.join("new"), b"").unwrap();
                std::fs::read_dir(target).unwrap().count()
            });
            if seen.is_some() {
                assert_eq!(seen, Some(4), "{name} {old}");
                assert!(trees.0.join("up/new").exists());
            }
        }
    }
}

/// More than fit into a page by their full names, as on a kernel before 6.7; and more than fit at all.
#[test]
fn many_lower_directories_the_old_way() {
    let trees = Trees::new("many", 200);
    let seen = privately(|| {
        let (mount, target) = (trees.mount(200, ""), trees.0.join("m"));
        let plan = Plan::of(&mount.options).unwrap();
        let held = crate::fd::open_dir(&target).unwrap();
        by_mount(&mount, &plan, &Layers::of(&plan.rest), &held, || Ok(())).unwrap();
        let far: Vec<String> = (0..500).map(|n| format!("lowerdir+=/some/where/layer-number-{n}/fs")).collect();
        let words: Vec<&str> = far.iter().map(String::as_str).collect();
        let refused = by_mount(&mount, &plan, &Layers::of(&words), &held, || Ok(())).unwrap_err();
        (std::fs::read_dir(target).unwrap().count(), refused.to_string())
    });
    let Some((count, refused)) = seen else { return };
    assert_eq!(count, 200);
    assert!(refused.contains("500 layers do not fit"), "{refused}");
}

/// Both ways: what is stored as root's shows as 100000's, and back.
#[test]
fn mapped_ids() {
    for old in [false, true] {
        let trees = Trees::new(if old { "ids-old" } else { "ids" }, 2);
        let ids = IdMaps::parse("0:100000:65536").unwrap();
        let done = privately(|| {
            let (mount, target) = (trees.mount(2, "0:100000:65536"), trees.0.join("m"));
            let plan = Plan::of(&mount.options).unwrap();
            if old {
                let held = crate::fd::open_dir(&target).unwrap();
                let _mapped = Over::mount(&trees.0, &ids).unwrap();
                let layers = Layers::of(&plan.rest);
                by_mount(&mount, &plan, &layers, &held, || make_files_as(100_000, 100_000)).unwrap();
            } else {
                super::mount(&mount, &plan, &target).unwrap();
            }
            let of = |path: &Path| std::fs::symlink_metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
            assert_eq!(of(&target.join("f0")), (100_000, 100_000));
            make_files_as(100_007, 100_007).unwrap();
            std::fs::write(target.join("new"), b"").unwrap();
            std::fs::remove_file(target.join("f1")).unwrap();
            assert_eq!(of(&target.join("new")), (100_007, 100_007));
        });
        if done.is_some() {
            let of = |name: &str| std::fs::symlink_metadata(trees.0.join(name)).map(|m| (m.uid(), m.gid())).unwrap();
            assert_eq!((of("up/new"), of("up/f1")), ((7, 7), (0, 0)), "{old}");
        }
    }
}
