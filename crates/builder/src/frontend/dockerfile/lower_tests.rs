#![allow(clippy::unwrap_used)]
use super::super::{ResolvedImage, plan::plan};
use super::*;
use crate::graph::Graph;

fn options() -> Options {
    let platform: Platform = "linux/amd64".parse().unwrap();
    Options {
        target: None,
        build_args: BTreeMap::new(),
        labels: BTreeMap::new(),
        platform: platform.clone(),
        host: platform,
        named_contexts: BTreeMap::new(),
        no_network: false,
        no_cache: false,
        extra_hosts: Vec::new(),
        excludes: Vec::new(),
    }
}

fn base() -> ImageConfig {
    let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    config.config.env = vec!["PATH=/bin".into()];
    config.config.cmd = vec!["sh".into()];
    config
}

fn try_lower(text: &str, options: &Options) -> Result<Lowered, Diagnostic> {
    let file = parse::parse("Dockerfile", text)?;
    let plan = plan(&file, options)?;
    let resolve = |request: ImageRequest| {
        let pinned = format!("{}@sha256:00", request.reference);
        (request, ResolvedImage { pinned, config: base() })
    };
    let images = plan.images().into_iter().map(resolve).collect();
    lower(&file, &plan, options, &images)
}

fn lowered(text: &str) -> Lowered {
    try_lower(text, &options()).unwrap()
}

fn names(lowered: &Lowered) -> Vec<String> {
    Graph::load(&lowered.definition).unwrap().vertices.into_iter().map(|vertex| vertex.name).collect()
}

fn last_op(lowered: &Lowered) -> pb::op::Op {
    Graph::load(&lowered.definition).unwrap().vertices.pop().unwrap().op.op.unwrap()
}

fn exec(lowered: &Lowered) -> pb::ExecOp {
    let pb::op::Op::Exec(exec) = last_op(lowered) else { panic!("no exec") };
    exec
}

#[test]
fn names_steps_and_leaves_out_what_is_not_needed() {
    let text = "FROM a AS build\nRUN make\nFROM a AS unused\nRUN never\nFROM b\nCOPY --from=build /x /y\nCMD [\"x\"]";
    assert_eq!(
        names(&lowered(text)),
        ["[stage-2 1/2] FROM b", "[build 1/2] FROM a", "[build 2/2] RUN make", "[stage-2 2/2] COPY --from=build /x /y"]
    );
    let only = Options { target: Some("build".into()), ..options() };
    assert_eq!(names(&try_lower(text, &only).unwrap()), ["[build 1/2] FROM a", "[build 2/2] RUN make"]);
}

#[test]
fn run_gets_shell_environment_user_and_directory() {
    let text = "ARG V=1\nFROM a\nARG V\nARG W=w\nENV X=$V-$W V=env\nUSER web\nWORKDIR /srv\nWORKDIR app\nRUN make $X";
    let exec = exec(&lowered(text));
    let meta = exec.meta.unwrap();
    assert_eq!(meta.args, ["/bin/sh", "-c", "make $X"]);
    assert_eq!(meta.env, ["PATH=/bin", "X=1-w", "V=env", "W=w"]);
    assert_eq!((meta.cwd.as_str(), meta.user.as_str()), ("/srv/app", "web"));
    assert_eq!(exec.network, i32::from(pb::NetMode::Host));
    assert_eq!((exec.mounts[0].input, exec.mounts[0].output), (0, 0));
}

#[test]
fn build_args_win_over_defaults() {
    let mut options = options();
    options.build_args = BTreeMap::from([("V".into(), "2".into()), ("Z".into(), "0".into())]);
    let lowered = try_lower("ARG V=1\nFROM a:$V\nARG V=3\nRUN x", &options).unwrap();
    assert!(exec(&lowered).meta.unwrap().env.contains(&"V=2".into()));
    assert_eq!(names(&lowered)[0], "[1/2] FROM a:2");
    assert_eq!(lowered.warnings, ["build argument Z was not used"]);
}

#[test]
fn copies_become_file_actions() {
    let text = "FROM a\nWORKDIR /w\nCOPY --chown=web:5 --chmod=640 b/../c ../d e/";
    let pb::op::Op::File(op) = last_op(&lowered(text)) else { panic!() };
    assert_eq!(op.actions.len(), 2);
    let of = |number: usize| {
        let action = &op.actions[number];
        let Some(pb::file_action::Action::Copy(copy)) = action.action.clone() else { panic!() };
        (action.input, action.secondary_input, action.output, copy)
    };
    let (input, secondary, output, copy) = of(0);
    assert_eq!((input, secondary, output), (0, 1, -1));
    assert_eq!((copy.src.as_str(), copy.dest.as_str(), copy.mode), ("/c", "/w/e/", 0o640));
    let owner = copy.owner.unwrap();
    assert!(matches!(owner.user.unwrap().user, Some(pb::user_opt::User::ByName(named)) if named.name == "web"));
    assert!(matches!(owner.group.unwrap().user, Some(pb::user_opt::User::ById(5))));
    let (input, secondary, output, copy) = of(1);
    assert_eq!((input, secondary, output, copy.src.as_str()), (2, 1, 0, "/d"));
}

#[test]
fn configures_the_image() {
    let text = "FROM a\nLABEL x=\"1 2\"\nEXPOSE 80 90-91/udp\nVOLUME /d\nSTOPSIGNAL SIGINT\nHEALTHCHECK CMD true\n\
                ENTRYPOINT [\"e\"]\nONBUILD RUN x\nSHELL [\"/bin/bash\", \"-c\"]\nMAINTAINER me";
    let config = lowered(text).config;
    let run = &config.config;
    assert_eq!(run.labels["x"], "1 2");
    assert_eq!(run.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "90/udp", "91/udp"]);
    assert_eq!(run.volumes.keys().collect::<Vec<_>>(), ["/d"]);
    assert_eq!((run.stop_signal.as_str(), run.entrypoint.as_slice()), ("SIGINT", ["e".to_owned()].as_slice()));
    assert!(run.cmd.is_empty(), "ENTRYPOINT resets the base image's CMD");
    assert_eq!(run.healthcheck.as_ref().unwrap().test, ["CMD-SHELL", "true"]);
    assert_eq!(run.on_build, ["RUN x"]);
    assert_eq!(config.author.as_deref(), Some("me"));
}

#[test]
fn own_cmd_survives_entrypoint() {
    let config = lowered("FROM a\nCMD [\"c\"]\nENTRYPOINT e").config.config;
    assert_eq!(
        (config.cmd, config.entrypoint),
        (vec!["c".to_owned()], vec!["/bin/sh".into(), "-c".into(), "e".into()])
    );
}

#[test]
fn stages_inherit() {
    let text = "FROM scratch AS one\nENV A=1\nCOPY x /x\nFROM one\nRUN [\"/x\"]";
    let lowered = lowered(text);
    assert_eq!(exec(&lowered).meta.as_ref().unwrap().env[1], "A=1");
    let history: Vec<_> =
        lowered.history.iter().map(|entry| (entry.created_by.as_str(), entry.vertex.is_some())).collect();
    assert_eq!(history, [("ENV A=1", false), ("COPY x /x", true), ("RUN [\"/x\"]", true)]);
}

#[test]
fn heredocs() {
    let run = exec(&lowered("FROM a\nRUN <<EOF\nset -e\nmake\nEOF\n"));
    assert_eq!(run.meta.unwrap().args[2], "set -e\nmake\n");
    let run = exec(&lowered("FROM a\nRUN cat <<EOF > /f\nhi\nEOF\n"));
    assert_eq!(run.meta.unwrap().args[2], "cat <<EOF > /f\nhi\nEOF");
    let run = exec(&lowered("FROM a\nRUN <<EOF\n#!/bin/python\nprint()\nEOF\n"));
    assert_eq!((run.meta.unwrap().args[0].as_str(), run.mounts[1].input), ("/dev/pipes/EOF", 1));
}

#[test]
fn mounts() {
    let text = "FROM a AS b\nRUN y\nFROM a\nRUN --mount=from=b,source=x,target=/m --mount=type=cache,target=/c true";
    let run = exec(&lowered(text));
    assert_eq!((run.mounts[1].input, run.mounts[1].selector.as_str(), run.mounts[1].readonly), (1, "/x", true));
    assert_eq!(run.mounts[2].cache_opt.as_ref().unwrap().id, "/c");
}

#[test]
fn equal_text_gives_equal_bytes() {
    let text = "FROM a\nCOPY x /x\nRUN y";
    assert_eq!(lowered(text).definition.def, lowered(text).definition.def);
}

#[test]
fn errors_have_a_line() {
    let cases = [
        ("RUN x", 1),
        ("ARG x\nFROM $x", 2),
        ("FROM a\nCOPY a b c", 2),
        ("FROM a\nADD https://x/y /z", 2),
        ("FROM a\n\nEXPOSE http", 3),
        ("FROM a\nSTOPSIGNAL SIGNOPE", 2),
        ("FROM a\nENV a=${b:?no}", 2),
        ("FROM a\nCOPY --chmod=rwx a b", 2),
        ("ARG a=1", 1),
    ];
    for (text, line) in cases {
        assert_eq!(try_lower(text, &options()).unwrap_err().line, line, "{text}");
    }
    let missing = Options { target: Some("bild".into()), ..options() };
    let error = try_lower("FROM a AS build", &missing).unwrap_err();
    assert_eq!(error.problem.hint.as_deref(), Some("did you mean build?"));
}

#[test]
fn tells_of_undefined_variables() {
    assert_eq!(lowered("FROM a\nCOPY $nope/x /y").warnings, ["Dockerfile:2: variable nope is not defined"]);
}
