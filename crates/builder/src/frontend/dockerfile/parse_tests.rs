#![allow(clippy::unwrap_used)]
use super::*;

fn one(text: &str) -> Instruction {
    parse("Dockerfile", text).unwrap().statements.remove(0).instruction
}

fn shell(text: &str) -> Command {
    Command::Shell(text.into())
}

fn exec(words: &[&str]) -> Command {
    Command::Exec(words.iter().map(|word| (*word).into()).collect())
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
}

#[test]
fn reads_commands() {
    let cases = [
        ("CMD echo $x", Instruction::Cmd(shell("echo $x"))),
        ("cmd [\"a\", \"b c\"]", Instruction::Cmd(exec(&["a", "b c"]))),
        ("CMD []", Instruction::Cmd(exec(&[]))),
        ("ENTRYPOINT ['a']", Instruction::Entrypoint(shell("['a']"))),
        ("SHELL [\"/bin/bash\", \"-c\"]", Instruction::Shell(vec!["/bin/bash".into(), "-c".into()])),
        ("STOPSIGNAL SIGINT", Instruction::StopSignal("SIGINT".into())),
        ("WORKDIR /a b", Instruction::Workdir("/a b".into())),
        ("VOLUME /a /b", Instruction::Volume(vec!["/a".into(), "/b".into()])),
        ("VOLUME [\"/a b\"]", Instruction::Volume(vec!["/a b".into()])),
        ("ONBUILD RUN x", Instruction::Onbuild("RUN x".into())),
    ];
    for (text, expected) in cases {
        assert_eq!(one(text), expected, "{text}");
    }
}

#[test]
fn reads_pairs() {
    let cases = [
        ("ENV a=b c=\"d e\" f=g\\ h", owned(&[("a", "b"), ("c", "\"d e\""), ("f", "g\\ h")])),
        ("ENV a b c=d", owned(&[("a", "b c=d")])),
        ("ENV a=", owned(&[("a", "")])),
        ("ENV a=b=c", owned(&[("a", "b=c")])),
    ];
    for (text, expected) in cases {
        assert_eq!(one(text), Instruction::Env(expected), "{text}");
    }
    let expected = vec![("a".to_owned(), None), ("b".to_owned(), Some("1".to_owned()))];
    assert_eq!(one("ARG a b=1"), Instruction::Arg(expected));
}

#[test]
fn reads_from() {
    let from = |image: &str, name: Option<&str>, platform: Option<&str>| Instruction::From {
        image: image.into(),
        name: name.map(Into::into),
        platform: platform.map(Into::into),
    };
    assert_eq!(one("FROM a:1"), from("a:1", None, None));
    assert_eq!(one("from a AS Build"), from("a", Some("build"), None));
    assert_eq!(one("FROM --platform=linux/arm64 a as b"), from("a", Some("b"), Some("linux/arm64")));
}

#[test]
fn reads_copies() {
    let Instruction::Copy(copy) = one("COPY --from=b --chown=1:2 --chmod=755 a b /c/") else { panic!() };
    assert_eq!((copy.sources, copy.destination.as_str()), (vec!["a".to_owned(), "b".to_owned()], "/c/"));
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("b"), Some("1:2"), Some("755"))
    );
    let Instruction::Copy(copy) = one("COPY [\"a b\", \"/c\"]") else { panic!() };
    assert_eq!(copy.sources, ["a b"]);
    let Instruction::Copy(copy) = one("COPY <<x.txt other /d/\nhi\nx.txt") else { panic!() };
    assert_eq!((copy.inline[0].content.as_str(), copy.sources), ("hi\n", vec!["other".to_owned()]));
}

#[test]
fn reads_run_and_healthcheck() {
    let Instruction::Run(run) = one("RUN --network=none --mount=type=tmpfs,target=/t make --all") else { panic!() };
    assert_eq!((run.network, run.command, run.mounts.len()), (RunNetwork::None, shell("make --all"), 1));
    let Instruction::Healthcheck(check) = one("HEALTHCHECK --interval=5s --retries=3 CMD curl x") else { panic!() };
    assert_eq!((check.interval, check.retries, check.command), (5_000_000_000, 3, Some(shell("curl x"))));
    assert_eq!(one("HEALTHCHECK NONE"), Instruction::Healthcheck(Healthcheck::default()));
}

#[test]
fn errors_name_file_and_line() {
    let error = parse("app/Dockerfile", "FROM a\n\nRNU make\n").unwrap_err();
    assert_eq!(error.to_string(), "app/Dockerfile:3: unknown instruction RNU\n   3 | RNU make");
    assert_eq!(error.problem.hint.as_deref(), Some("did you mean RUN?"));
}

#[test]
fn refuses_mistakes() {
    let cases = [
        "FROM",
        "FROM a b",
        "FROM a AS 1x",
        "FROM a AS scratch",
        "COPY a",
        "ENV a",
        "ENV a=b c",
        "ENV =b",
        "ARG =b",
        "SHELL /bin/sh",
        "HEALTHCHECK echo",
        "HEALTHCHECK NONE x",
        "HEALTHCHECK CMD",
        "HEALTHCHECK --retries=x CMD a",
        "ONBUILD FROM a",
        "ONBUILD ONBUILD RUN x",
        "RUN --network=lan x",
        "RUN --security=insecure x",
        "RUN --mount=type=ssh x",
        "COPY --from=a --from=b c d",
        "CMD --flag x",
        "XYZ",
        "WORKDIR",
        "",
    ];
    for text in cases {
        assert!(parse("Dockerfile", text).is_err(), "{text}");
    }
}

#[test]
fn warns() {
    assert_eq!(parse("D", "MAINTAINER me").unwrap().warnings.len(), 1);
    assert_eq!(
        parse("D", "CMD ['a']").unwrap().warnings,
        ["D:1: looks like a JSON array but is none, so the shell gets it"]
    );
}
