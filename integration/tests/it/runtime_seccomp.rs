//! Seccomp of `pier-runtime`: what a profile says is what the kernel does (roadmap S25). What is everybody's behaviour runs
//! against Debian's runc too.
use anyhow::{Context, ensure};
use integration::{Bed, Outcome, Result, isolated};
use serde_json::{Value, json};

const PIER: &str = "pier-runtime";
const RUNC: &str = "/usr/sbin/runc";

/// x86_64 numbers of calls that no shell makes.
const KEYCTL: &str = "250";
const BPF: &str = "321";
const SOCKET: &str = "41";
const PERSONALITY: &str = "135";
const EPERM: &str = "-1 1\n";
const ENOSYS: &str = "-1 38\n";

/// A bundle whose program prints the result of `/syscall ARGS...`, under that `linux.seccomp`.
fn bundle(bed: &Bed, name: &str, args: &[&str], seccomp: &Value, change: impl FnOnce(&mut Value)) -> Result {
    let dir = bed.dir().join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    bed.fixture().bundle(&dir, args)?;
    compile(bed, "syscall", &format!("{name}/rootfs/syscall"))?;
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["root"]["readonly"] = json!(false);
    config["linux"]["seccomp"] = seccomp.clone();
    change(&mut config);
    Ok(std::fs::write(path, serde_json::to_vec(&config)?)?)
}

pub(crate) fn compile(bed: &Bed, name: &str, to: &str) -> Result {
    let source = format!("{}/fixtures/{name}.c", env!("CARGO_MANIFEST_DIR"));
    bed.sh(&format!("[ -e {name}.made ] || cc -static -O1 -w -o {name}.made {source}; cp {name}.made {to}"))?.ok()?;
    Ok(())
}

/// A script with `$R` as the runtime on a state directory of the bed.
fn sh(bed: &Bed, rt: &str, script: &str) -> Result<Outcome> {
    bed.sh(&format!("R() {{ {rt} --root $PWD/state \"$@\"; }}\n{script}"))
}

/// What `/syscall CALL` prints under a profile.
fn call(bed: &Bed, rt: &str, seccomp: &Value, call: &str) -> Result<String> {
    let args: Vec<&str> = ["/syscall"].into_iter().chain(call.split(' ')).collect();
    bundle(bed, "c", &args, seccomp, |_| ())?;
    Ok(sh(bed, rt, "R run --bundle c one </dev/null")?.ok()?.out().to_owned() + "\n")
}

fn allow_but(rule: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [rule]})
}

macro_rules! both {
    ($($test:ident;)*) => {
        mod pier { use super::*; $(#[test] fn $test() -> Result { isolated!(|bed| super::$test(bed, PIER)) })* }
        mod runc { use super::*; $(#[test] fn $test() -> Result { isolated!(|bed| super::$test(bed, RUNC)) })* }
    };
}

both! {
    actions;
    arguments_are_compared;
    newer_calls_do_not_exist;
    what_a_default_profile_denies;
    order_of_privileges;
    what_is_refused;
}

fn actions(bed: &Bed, rt: &str) -> Result {
    let rule = |action: &str| allow_but(&json!({"names": ["keyctl", "no_such_call"], "action": action}));
    ensure!(call(bed, rt, &rule("SCMP_ACT_ERRNO"), KEYCTL)? == EPERM, "errno");
    let mut with = rule("SCMP_ACT_ERRNO");
    with["syscalls"][0]["errnoRet"] = json!(100);
    ensure!(call(bed, rt, &with, KEYCTL)? == "-1 100\n", "errnoRet");
    ensure!(call(bed, rt, &rule("SCMP_ACT_TRACE"), KEYCTL)? == ENOSYS, "nobody traces");
    let free = call(bed, rt, &rule("SCMP_ACT_ALLOW"), KEYCTL)?;
    ensure!(![EPERM, ENOSYS].contains(&free.as_str()), "{free}");
    ensure!(call(bed, rt, &rule("SCMP_ACT_LOG"), KEYCTL)? == free, "logged and done");
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        bundle(bed, "k", &["/syscall", KEYCTL], &rule(action), |_| ())?;
        // 128 + SIGSYS.
        sh(bed, rt, "R run --bundle k one </dev/null")?.exits(159).with_context(|| action.to_owned())?;
    }
    Ok(())
}

fn arguments_are_compared(bed: &Bed, rt: &str) -> Result {
    let cases = [
        (json!({"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}), [("7", true), ("8", false)]),
        (json!({"index": 0, "value": 7, "op": "SCMP_CMP_NE"}), [("7", false), ("8", true)]),
        (json!({"index": 0, "value": 7, "op": "SCMP_CMP_GT"}), [("7", false), ("8", true)]),
        // The mask is `value`, what must be left is `valueTwo` (libcontainer 0.7 has them the other way round).
        (
            json!({"index": 0, "value": 0xf0, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ"}),
            [("0x1f", true), ("0x2f", false)],
        ),
        (json!({"index": 0, "value": 0xf0, "op": "SCMP_CMP_MASKED_EQ"}), [("0x0f", true), ("0x1f", false)]),
    ];
    for (arg, calls) in cases {
        let seccomp =
            allow_but(&json!({"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [arg]}));
        for (value, denied) in calls {
            let got = call(bed, rt, &seccomp, &format!("{KEYCTL} {value}"))?;
            ensure!((got == "-1 77\n") == denied, "{arg} with {value}: {got}");
        }
    }
    // Two comparisons of one argument are two rules.
    let twice = json!([{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 4, "op": "SCMP_CMP_EQ"}]);
    let seccomp = allow_but(&json!({"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": twice}));
    ensure!(call(bed, rt, &seccomp, &format!("{KEYCTL} 4"))? == "-1 77\n");
    Ok(())
}

/// A profile that allows what the container needs and names calls up to 435 (clone3).
fn deny_but(names: &[&str]) -> Value {
    let needed = "read write writev close openat open execve exit exit_group mmap munmap mprotect brk fstat newfstatat statx stat \
        ioctl rt_sigaction rt_sigreturn rt_sigprocmask arch_prctl set_tid_address set_robust_list rseq prlimit64 readlink readlinkat \
        getrandom fcntl prctl capset capget capget setuid setgid setgroups setresuid setresgid chdir fchdir getcwd faccessat faccessat2 \
        access futex futex_time64 sendmsg recvmsg sendto recvfrom getuid getgid geteuid getegid getpid getppid gettid tgkill \
        sigaltstack madvise sched_getaffinity sched_yield epoll_pwait epoll_create1 epoll_ctl pipe2 clone nanosleep getdents64 \
        fstatfs statfs lseek fchown dup dup2 dup3 wait4 close_range pread64 uname kill exit_group access clone3 getpgrp getpgid";
    let all: Vec<&str> = needed.split_whitespace().filter(|n| !names.contains(n)).collect();
    json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": all, "action": "SCMP_ACT_ALLOW"}]})
}

fn newer_calls_do_not_exist(bed: &Bed, rt: &str) -> Result {
    let mut profile = deny_but(&[]);
    ensure!(call(bed, rt, &profile, "9999")? == ENOSYS, "newer than the profile");
    ensure!(call(bed, rt, &profile, KEYCTL)? == EPERM, "older, and not allowed");
    ensure!(call(bed, rt, &profile, "32 9999")? == ENOSYS, "newer, in the 32-bit way");
    ensure!(call(bed, rt, &profile, "32 288")? == EPERM, "older (keyctl), in the 32-bit way");
    profile["defaultErrnoRet"] = json!(99);
    ensure!(call(bed, rt, &profile, KEYCTL)? == "-1 99\n", "defaultErrnoRet");
    ensure!(call(bed, rt, &profile, "9999")? == ENOSYS, "newer, with a default of its own");
    Ok(())
}

/// S25: keyctl, bpf, new user namespaces, AF_ALG and AF_VSOCK.
fn what_a_default_profile_denies(bed: &Bed, rt: &str) -> Result {
    let mut profile = deny_but(&[]);
    let rules = json!([
        // As docker's: any family but these two, and clone without a new user namespace.
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_LT"}]},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 39, "op": "SCMP_CMP_EQ"}]},
        {"names": ["unshare"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0x1000_0000, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
    ]);
    profile["syscalls"].as_array_mut().context("syscalls")?.extend(rules.as_array().context("rules")?.iter().cloned());
    for denied in [
        KEYCTL.to_owned(),
        BPF.to_owned(),
        "272 0x10000000".to_owned(),
        format!("{SOCKET} 38 5 0"),
        format!("{SOCKET} 40 1 0"),
        format!("{PERSONALITY} 8"),
    ] {
        ensure!(call(bed, rt, &profile, &denied)? == EPERM, "{denied} is not denied");
    }
    for allowed in [format!("{SOCKET} 1 1 0"), "272 0x200".to_owned(), format!("{PERSONALITY} 0")] {
        ensure!(!call(bed, rt, &profile, &allowed)?.starts_with("-1 "), "{allowed} is denied");
    }
    Ok(())
}

/// Without `noNewPrivileges` loading takes a privilege that the program does not have any more, with it the last steps are
/// under the filter.
fn order_of_privileges(bed: &Bed, rt: &str) -> Result {
    let seccomp = allow_but(
        &json!({"names": ["setresuid", "setresgid", "setgroups", "setuid", "setgid"], "action": "SCMP_ACT_LOG"}),
    );
    for (value, printed) in [(json!(null), "0"), (json!(false), "0"), (json!(true), "1")] {
        bundle(bed, "p", &["sh", "-c", "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; id -u"], &seccomp, |c| {
            c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            c["process"]["capabilities"] = json!({});
            if let Some(process) = c["process"].as_object_mut() {
                process.remove("noNewPrivileges");
                if !value.is_null() {
                    process.insert("noNewPrivileges".into(), value.clone());
                }
            }
        })?;
        sh(bed, rt, "R run --bundle p one </dev/null")?
            .ok()?
            .has(&format!("NoNewPrivs:\t{printed}\nSeccomp:\t2\n1000"))?;
    }
    Ok(())
}

fn what_is_refused(bed: &Bed, rt: &str) -> Result {
    let rule = |names: Value, action: &str| allow_but(&json!({"names": names, "action": action}));
    let mut flag = rule(json!(["keyctl"]), "SCMP_ACT_ERRNO");
    flag["flags"] = json!(["SECCOMP_FILTER_FLAG_NONSENSE"]);
    let mut default = rule(json!(["keyctl"]), "SCMP_ACT_ERRNO");
    default["defaultAction"] = json!("SCMP_ACT_NOTIFY");
    let mut arch = rule(json!(["keyctl"]), "SCMP_ACT_ERRNO");
    arch["architectures"] = json!(["SCMP_ARCH_PDP11"]);
    for (what, seccomp) in [
        ("SCMP_ACT_NONSENSE", rule(json!(["keyctl"]), "SCMP_ACT_NONSENSE")),
        ("SCMP_ARCH_PDP11", arch),
        ("SCMP_ACT_NOTIFY cannot be used as default action", default),
        ("SCMP_ACT_NOTIFY cannot be used for the write syscall", rule(json!(["write"]), "SCMP_ACT_NOTIFY")),
        ("", rule(json!(["mkdir"]), "SCMP_ACT_NOTIFY")),
        ("SECCOMP_FILTER_FLAG_NONSENSE", flag),
    ] {
        // Debian's runc is older than flags.
        if rt == RUNC && what.contains("FLAG") {
            continue;
        }
        bundle(bed, "r", &["true"], &seccomp, |c| {
            if what.contains("write") {
                c["linux"]["seccomp"]["listenerPath"] = json!("/nowhere");
            }
        })?;
        sh(bed, rt, "R run --bundle r one </dev/null 2>&1")?.fails()?.has(what)?;
        ensure!(sh(bed, rt, "R list -q")?.ok()?.out().is_empty(), "{what}: it left its state");
    }
    Ok(())
}

/// Starts the agent; `$DIR/states` is what it was told.
const AGENT: &str = "rm -f agent.sock states; ./agent $PWD/agent.sock states & agent=$!; trap 'kill $agent' EXIT; \
    while [ ! -S agent.sock ]; do sleep 0.02; done\n";

fn notifying(bed: &Bed, names: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "listenerMetadata": "some words",
        "listenerPath": bed.dir().join("agent.sock"), "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]})
}

#[test]
fn an_agent_answers() -> Result {
    isolated!(|bed| {
        compile(bed, "seccomp-agent", "agent")?;
        for privileges in [false, true] {
            let seccomp = notifying(bed, &json!(["mkdir", "mkdirat"]));
            bundle(bed, "n", &["sh", "-c", "mkdir /tmp/x 2>&1; sleep 1000"], &seccomp, |c| {
                c["process"]["noNewPrivileges"] = json!(privileges);
                c["annotations"] = json!({"some": "thing"});
            })?;
            let script = "R run -d --bundle n --pid-file pid one </dev/null >out 2>&1; sleep 0.3; cat out; \
                          R exec one mkdir /tmp/y 2>&1; R delete -f one; cat states; echo; cat pid";
            let told = sh(bed, PIER, &format!("{AGENT}{script}"))?.ok()?;
            let text = told.out();
            ensure!(text.matches("No medium found").count() == 2, "{text}");
            let states: Vec<Value> =
                text.lines().filter_map(|l| serde_json::from_str(l).ok()).filter(Value::is_object).collect();
            ensure!(states.len() == 2, "{text}");
            let first = &states[0];
            ensure!(first["fds"] == json!(["seccompFd"]) && first["metadata"] == "some words", "{first}");
            ensure!(first["state"]["id"] == "one" && first["state"]["status"] == "creating", "{first}");
            ensure!(
                first["state"]["annotations"]["some"] == "thing" && first["pid"] == first["state"]["pid"],
                "{first}"
            );
            ensure!(text.lines().last() == Some(&first["pid"].to_string()), "{text}");
            ensure!(states[1]["state"]["status"] == "running", "{}", states[1]);
        }
        Ok(())
    })
}

/// Calls that the runtime itself makes under the filter: it must not wait for itself.
#[test]
fn an_agent_is_asked_about_the_runtimes_own_calls() -> Result {
    isolated!(|bed| {
        compile(bed, "seccomp-agent", "agent")?;
        let names =
            json!(["execve", "openat", "open", "read", "close", "fcntl", "sendmsg", "recvmsg", "sendto", "setresuid"]);
        for privileges in [false, true] {
            bundle(bed, "n", &["sh", "-c", "echo alive"], &notifying(bed, &names), |c| {
                c["process"]["noNewPrivileges"] = json!(privileges);
            })?;
            sh(bed, PIER, &format!("{AGENT}timeout 20 {PIER} --root $PWD/state run --bundle n one </dev/null 2>&1"))?
                .ok()?
                .has("alive")?;
        }
        Ok(())
    })
}

#[test]
fn without_an_agent() -> Result {
    isolated!(|bed| {
        bundle(bed, "n", &["true"], &notifying(bed, &json!(["mkdir"])), |_| ())?;
        sh(bed, PIER, "R run --bundle n one </dev/null 2>&1")?.fails()?.has("failed to connect with seccomp agent")?;
        sh(bed, PIER, "R list -q | wc -l")?.ok()?.has("0")?;
        Ok(())
    })
}

/// One compilation per profile; what others could have written is not taken.
#[test]
fn programs_are_kept_and_not_trusted_blindly() -> Result {
    isolated!(|bed| {
        let seccomp = allow_but(&json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}));
        bundle(bed, "b", &["sleep", "1000"], &seccomp, |_| ())?;
        let run = "R run -d --bundle b $n </dev/null >out 2>&1; R exec $n mkdir /tmp/x 2>&1 | grep -o 'not permitted'; R delete -f $n";
        let kept = "ls -i state/.cache/seccomp";
        let first = sh(bed, PIER, &format!("n=a; {run}; {kept}"))?.ok()?.with("not permitted")?;
        let again = sh(bed, PIER, &format!("n=b; {run}; {kept}"))?.ok()?;
        ensure!(first.out() == again.out() && first.out().lines().count() == 2, "{} / {}", first.out(), again.out());
        // Damaged in the cache, and planted in one that others may write to: compiled anew.
        let nothing = allow_but(&json!({"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"}));
        bundle(bed, "o", &["true"], &nothing, |_| ())?;
        let damage = "f=$(ls -d state/.cache/seccomp/*); (head -c 32 $f; tail -c +33 other/.cache/seccomp/*) >mixed; cat mixed >$f";
        sh(bed, PIER, &format!("pier-runtime --root $PWD/other run --bundle o o </dev/null; {damage}; n=c; {run}"))?
            .ok()?
            .has("not permitted")?;
        let plant = "cp other/.cache/seccomp/* $(ls -d state/.cache/seccomp/*)";
        sh(bed, PIER, &format!("{plant}; chmod 777 state/.cache/seccomp; n=d; {run}"))?.ok()?.has("not permitted")?;
        // A running container has its own.
        sh(bed, PIER, "R run -d --bundle b e </dev/null >out 2>&1; rm -r state/.cache; R exec e mkdir /tmp/x 2>&1")?
            .fails()?
            .has("not permitted")?;
        sh(bed, PIER, "echo nonsense >state/e/seccomp.bpf; R exec e mkdir /tmp/x 2>&1")?
            .fails()?
            .has("not permitted")?;
        sh(bed, PIER, "R delete -f e")?.ok()?;
        Ok(())
    })
}
