//! Every daemon is killed under a running, logging, connected container.
use super::stage::{Stage, alive};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// SIGKILLs pierd and all tools, in turn and then together; the TCP connection, the log and exec must not notice.
pub fn daemons_die_container_lives(s: &Stage) -> Result<()> {
    s.act("SIGKILL for every daemon in turn, while a client holds a connection and the container counts into its log");
    let mut client = Client::connect(s)?;
    client.echo("before")?;
    let order = ["pierd", "pier-supervisor", "pier-network", "pier-volume", "pier-distribution", "pier-builder"];
    for name in order {
        kill(s, &[name])?;
        client.echo(name)?;
        if name == "pierd" {
            s.start_engine()?;
        }
        s.sh("pier exec web echo still here")?.has("still here")?;
    }
    println!("all at once:");
    kill(s, &order)?;
    client.echo("all dead")?;
    std::thread::sleep(Duration::from_millis(300));
    client.echo("alone for a while")?;
    s.start_engine()?;
    s.sh("pier exec web echo still here")?.has("still here")?;
    s.sh("pier ps")?.has("web")?;
    client.echo("after")?;
    println!("the connection answered every time");
    no_line_lost(s)
}

fn kill(s: &Stage, names: &[&str]) -> Result<()> {
    let victims: Vec<(String, u32)> = s.servers().into_iter().filter(|(n, _)| names.contains(&n.as_str())).collect();
    for (name, pid) in &victims {
        println!("$ kill -KILL {pid}   # {name}");
        Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    }
    let end = Instant::now() + Duration::from_secs(5);
    while victims.iter().any(|(_, pid)| alive(*pid)) {
        s.reap();
        ensure!(Instant::now() < end, "{names:?} survive SIGKILL");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The log holds tick 0, 1, 2 ... without a gap.
fn no_line_lost(s: &Stage) -> Result<()> {
    let printed = s.quiet("pier logs web")?.1;
    let ticks: Vec<u64> = printed.lines().filter_map(|l| l.strip_prefix("tick ")?.parse().ok()).collect();
    let last = *ticks.last().context("no tick in the log")?;
    ensure!(ticks.iter().copied().eq(0..=last), "the log has gaps: {} lines, last tick {last}", ticks.len());
    println!("$ pier logs web | grep -c tick\n{} lines, tick 0 to tick {last}, none missing", ticks.len());
    Ok(())
}

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(s: &Stage) -> Result<Self> {
        let address = format!("127.0.0.1:{}", s.var("ECHO"));
        println!("$ nc {address}");
        let stream = TcpStream::connect(&address).with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, reader })
    }

    fn echo(&mut self, word: &str) -> Result<()> {
        writeln!(self.stream, "{word}")?;
        let mut line = String::new();
        self.reader.read_line(&mut line).context("the connection was lost")?;
        ensure!(line.trim_end() == word, "the connection answered {line:?} to {word:?}");
        Ok(())
    }
}
