//! The command line: docker's verbs at the top, the same again below the nouns.

use clap::{Parser, Subcommand};

use crate::client::Client;
use crate::commands::{container, image, inspect, network, system, volume};

/// Containers, images, networks and volumes of a Pier engine.
#[derive(Debug, Parser)]
#[command(name = "pier", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub globals: console::Globals,
    /// The engine's socket, unix:///path; default: <run>/pier.sock
    #[arg(short = 'H', long, global = true, help_heading = console::GLOBAL, env = "PIER_HOST", value_name = "ADDRESS")]
    pub host: Option<String>,
    #[command(subcommand)]
    pub command: Top,
}

#[derive(Debug, Subcommand)]
pub enum Top {
    #[command(flatten)]
    Containers(container::Verb),
    /// List containers
    Ps(container::ls::Args),
    #[command(flatten)]
    Images(image::Verb),
    /// List images
    #[command(name = "images")]
    ImageList(image::ls::Args),
    /// Remove images
    Rmi(image::rm::Args),
    /// Print containers, images, networks or volumes as JSON
    Inspect(inspect::Args),
    /// Find repositories of a registry by a word
    Search(image::search::Args),
    /// Indexes: one name for the images of several platforms
    #[command(subcommand)]
    Manifest(image::manifest::Noun),
    /// Store credentials for a registry
    Login(image::login::Args),
    /// Forget the credentials for a registry
    Logout(image::logout::Args),
    /// Print what happens, as it happens
    Events(system::events::Args),
    /// Print what this engine is and has
    Info(system::info::Args),
    /// Print the versions of client and engine
    Version(system::version::Args),
    /// Containers
    #[command(subcommand)]
    Container(container::Noun),
    /// Images
    #[command(subcommand)]
    Image(image::Noun),
    /// Networks
    #[command(subcommand)]
    Network(network::Noun),
    /// Volumes
    #[command(subcommand)]
    Volume(volume::Noun),
    /// The engine as a whole
    #[command(subcommand)]
    System(system::Noun),
    /// Builds
    #[command(subcommand)]
    Builder(image::BuilderNoun),
    #[command(flatten)]
    Generate(console::Generate),
}

impl Top {
    /// Does it; the exit code on success.
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Containers(verb) => verb.run(client).await,
            Self::Ps(args) => args.run(client).await,
            Self::Images(verb) => verb.run(client).await,
            Self::ImageList(args) => args.run(client).await,
            Self::Rmi(args) => args.run(client).await,
            Self::Inspect(args) => args.run(client).await,
            Self::Search(args) => args.run(client).await,
            Self::Manifest(noun) => noun.run(client).await,
            Self::Login(args) => args.run(client).await,
            Self::Logout(args) => args.run(client).await,
            Self::Events(args) => args.run(client).await,
            Self::Info(args) => args.run(client).await,
            Self::Version(args) => args.run(client).await,
            Self::Container(noun) => noun.run(client).await,
            Self::Image(noun) => noun.run(client).await,
            Self::Network(noun) => noun.run(client).await,
            Self::Volume(noun) => noun.run(client).await,
            Self::System(noun) => noun.run(client).await,
            Self::Builder(noun) => noun.run(client).await,
            Self::Generate(_) => Ok(0),
        }
    }
}

impl Cli {
    /// Whether the exit code is that of a container's first process, if it gets as far.
    pub fn runs_a_process(&self) -> bool {
        use container::Verb::Run;
        matches!(self.command, Top::Containers(Run(_)) | Top::Container(container::Noun::Shared(Run(_))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn takes_dockers_lines() {
        for line in [
            "run -it --rm alpine sh -c ls",
            "run -d --name web -p 8080:80 -v data:/data -m 64m --cpus 0.5 --network blue -h box app",
            "run --memory-swap -1 --pids-limit -1 --oom-score-adj -5 alpine",
            "container run alpine",
            "exec -it web sh -c 'x'",
            "exec -e A=b -w / -u 0 web ls -l --all",
            "ps -aq --no-trunc -f status=exited",
            "container ls -n 3",
            "logs -f --tail 10 --since 10m web",
            "rm -fv a b",
            "rmi -f x",
            "stop -t 3 a",
            "kill -s HUP a",
            "images -q --digests busy",
            "rmi --no-prune busy",
            "search --limit 5 -f is-official=true --no-trunc --format {{.Name}} busy",
            "image inspect --platform linux/arm64 busy",
            "manifest create -a --insecure app:1 app:1-amd64 app:1-arm64",
            "manifest annotate --arch arm64 --os linux --variant v8 --os-features a,b app:1 app:1-arm64",
            "manifest inspect -v app:1 app:1-arm64",
            "manifest push -p app:1",
            "manifest rm app:1 app:2",
            "push -a busy",
            "pull -aq busy",
            "history -q --human=false busy",
            "system df -v",
            "build -t a:b -f Dockerfile --build-arg A=b --target x --no-cache --progress plain .",
            "network create --subnet 10.1.0.0/16 --internal -o mtu=1400 blue",
            "network connect --alias db --ip 10.1.0.5 blue web",
            "volume create -l a=b data",
            "cp -a web:/x - ",
            "inspect -f {{.Id}} --type container web",
            "system prune -af --volumes",
            "--host unix:///x.sock ps",
            "ps --host unix:///x.sock",
            "save -o x.tar a b",
            "completion bash",
        ] {
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            Cli::try_parse_from(std::iter::once("pier").chain(words)).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        let help = Cli::try_parse_from(["pier", "run", "--help"]).unwrap_err();
        assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp);
        assert!(Cli::try_parse_from(["pier", "run", "--bogus", "alpine"]).is_err());
    }
}
