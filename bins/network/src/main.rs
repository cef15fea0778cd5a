//! `pier-network`: arguments and wiring. The work is the crate `network`.

mod args;
mod serve;
mod show;
mod verbs;

use std::process::ExitCode;

use clap::Parser;
use network::{Config, Networks};

use args::{Cli, Verb};

fn main() -> ExitCode {
    // The holder of published ports lives long and does little: nothing else is set up for it.
    if std::env::args_os().nth(1).is_some_and(|word| word == network::HOLD_PORTS) {
        return if network::hold_ports().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cli = Cli::parse();
    let format = cli.globals.error_format;
    console::finish("pier-network", format, run(cli), rpc::explain_own::<network::Error>)
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    cli.globals.init_logging();
    let globals = cli.globals.absolute()?;
    let mut config = Config::new(&globals.tool_root("network"), &globals.tool_run("network"));
    config.holder = std::env::current_exe().ok();
    match cli.verb {
        Verb::Generate(what) => console::generate::<Cli>(&what)?,
        Verb::Serve(args) => {
            config.resolv_conf.clone_from(&args.resolv_conf);
            serve::serve(config, &globals.run, args)?;
        }
        verb => verbs::run(&Networks::open(config)?, verb)?,
    }
    Ok(0)
}
