//! Help text, from the table of commands.

use crate::args::{Flag, Verb};
use crate::verbs::{GLOBALS, VERBS};

/// The help of a command, or of all, laid out as runc's: people and scripts look for its headings.
pub fn help(verb: Option<&Verb>, program: &str) -> String {
    let name = verb.map_or_else(|| program.to_owned(), |v| format!("{program} {}", v.name));
    let about = verb.map_or("Open Container Initiative runtime, safe and fast", |v| v.help);
    let mut text = format!("NAME:\n   {name} - {about}\n\nUSAGE:\n");
    match verb {
        Some(verb) => text.push_str(&format!("   {name} [command options] {}\n", verb.operands)),
        None => {
            text.push_str(&format!("   {name} [global options] command [command options] [arguments...]\n"));
            text.push_str(&format!("\nVERSION:\n   {}\n\nCOMMANDS:\n", env!("CARGO_PKG_VERSION")));
            for verb in VERBS.iter().filter(|v| !v.hidden) {
                text.push_str(&format!("   {:<12} {}\n", verb.name, verb.help));
            }
        }
    }
    text.push_str(if verb.is_some() { "\nOPTIONS:\n" } else { "\nGLOBAL OPTIONS:\n" });
    verb.map_or(GLOBALS, |v| v.flags).iter().for_each(|flag| text.push_str(&option(flag)));
    text.push_str(&format!("   {:<34} show help\n", "--help, -h"));
    text
}

fn option(flag: &Flag) -> String {
    let value = flag.value.map(|v| format!(" {v}")).unwrap_or_default();
    let short = flag.short.map(|c| format!(", -{c}{value}")).unwrap_or_default();
    format!("   {:<34} {}\n", format!("--{}{value}{short}", flag.name), flag.help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings() {
        assert!(help(None, "runc").starts_with("NAME:\n   runc - Open Container Initiative runtime"));
        assert!(VERBS.iter().all(|v| help(Some(v), "x").contains(&format!("\n   x {} - ", v.name))));
    }
}
