//! `pier-network`: arguments and wiring. The work is the crate `network`.

mod args;
mod serve;
mod show;
mod verbs;

use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

use clap::Parser;
use console::Globals;
use network::cni::plugin::{self, Call};
use network::{Config, Networks};

use args::{Cli, Verb};

fn main() -> ExitCode {
    // The holder of published ports lives long and does little: nothing else is set up for it.
    if std::env::args_os().nth(1).is_some_and(|word| word == network::HOLD_PORTS) {
        return if network::hold_ports().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(call) = Call::of_environment().filter(|_| std::env::args_os().len() == 1) {
        return answer_cni(&call);
    }
    let cli = Cli::parse();
    let format = cli.globals.error_format;
    console::finish("pier-network", format, run(cli), rpc::explain_own::<network::Error>)
}

/// A container runtime calls this program as a CNI plugin: stdin, environment, and JSON on stdout.
fn answer_cni(call: &Call) -> ExitCode {
    let mut stdin = String::new();
    // What cannot be read is not JSON either, and answered so.
    let _ = std::io::stdin().read_to_string(&mut stdin);
    let Cli { globals, firewall, .. } = Cli::parse_from(["pier-network", "reconcile"]);
    let (answer, well) = plugin::answer(call, &stdin, |root, run| {
        let own = |dir: std::path::PathBuf| dir.join("network");
        let root = root.map_or_else(|| globals.tool_root("network"), own);
        let run = run.map_or_else(|| globals.tool_run("network"), own);
        // Ports are not held for a runtime that speaks CNI: some (podman) hold them themselves, after the ADD.
        let mut config = Config::new(&root, &run);
        // A wrong word in the environment is no reason to answer otherwise than in CNI's way.
        config.firewall = firewall.parse().ok();
        config
    });
    if !answer.is_empty() {
        println!("{answer}");
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    cli.globals.init_logging();
    let globals = cli.globals.absolute()?;
    let mut config = Config::new(&globals.tool_root("network"), &globals.tool_run("network"));
    config.holder = std::env::current_exe().ok();
    config.resolv_conf = std::path::absolute(&cli.resolv_conf)?;
    config.keeper = keeper(&globals, &config)?;
    config.firewall = match (&cli.verb, cli.firewall.as_str()) {
        // The keeper follows whoever changes the rules.
        (Verb::Keep, _) | (_, "auto") => None,
        (_, word) => Some(word.parse()?),
    };
    match cli.verb {
        Verb::Generate(what) => console::generate::<Cli>(&what)?,
        Verb::Serve(door) => serve::serve(config, &globals.run, &door)?,
        Verb::Keep => serve::keep(config)?,
        verb => return verbs::run(&Networks::open(config)?, verb),
    }
    Ok(0)
}

/// This program again, as the keeper of the same stack.
fn keeper(globals: &Globals, config: &Config) -> anyhow::Result<Vec<OsString>> {
    Ok(vec![
        std::env::current_exe()?.into(),
        "--root".into(),
        globals.root.clone().into(),
        "--run".into(),
        globals.run.clone().into(),
        "--resolv-conf".into(),
        config.resolv_conf.clone().into(),
        "keep".into(),
    ])
}
