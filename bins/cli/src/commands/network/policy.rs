//! `pier network policy`

use std::collections::HashMap;

use anyhow::Context;
use api::network::v1::{CreatePolicyRequest, ListPoliciesRequest, Policy, PolicyPorts, RemovePolicyRequest};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::client::{Answer, Client, filled};
use crate::commands::{each, say};
use crate::flags::{environment, port};
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 5] =
    [("NAME", "Name"), ("ACTION", "Action"), ("FROM", "From"), ("TO", "To"), ("PORTS", "Ports")];

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a policy; the first that fits decides, in the order of their making
    Create(Create),
    /// List policies in their order
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove policies
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    Allow,
    Deny,
}

#[derive(Debug, clap::Args)]
pub struct Create {
    name: String,
    /// deny refuses; allow leaves it to the networks, as an exception to later policies
    #[arg(value_enum)]
    action: Action,
    /// Label of the containers that call, KEY=VALUE or KEY; everybody when absent
    #[arg(long, value_name = "LABEL")]
    from: Vec<String>,
    /// Label of the containers that are called
    #[arg(long, value_name = "LABEL")]
    to: Vec<String>,
    /// Only at these ports of theirs, PORT[-END][/tcp|udp|sctp]
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Ls {
    /// "json", a template such as {{.Name}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Rm {
    #[arg(required = true)]
    policies: Vec<String>,
    /// A missing one is no error
    #[arg(short, long)]
    force: bool,
}

impl Verb {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Create(args) => args.run(client).await,
            Self::Ls(args) => args.run(client).await,
            Self::Rm(args) => args.run(client).await,
        }
    }
}

impl Create {
    async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let policy = Policy {
            name: self.name,
            deny: self.action == Action::Deny,
            from: environment::labels(&[], &self.from)?,
            to: environment::labels(&[], &self.to)?,
            ports: self.ports.iter().map(|text| ports(text)).collect::<anyhow::Result<_>>()?,
        };
        let request = CreatePolicyRequest { policy: Some(policy) };
        let answer = client.network().await?.create_policy(request).await.answer()?;
        say(filled(answer.policy, "policy")?.name)?;
        Ok(0)
    }
}

impl Ls {
    async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let answer = client.network().await?.list_policies(ListPoliciesRequest {}).await.answer()?;
        let row = |policy: &Policy| {
            json!({
                "Name": policy.name, "Action": if policy.deny { "deny" } else { "allow" },
                "From": selector(&policy.from), "To": selector(&policy.to),
                "Ports": policy.ports.iter().map(ports_text).collect::<Vec<_>>().join(", "),
            })
        };
        let rows: Vec<_> = answer.policies.iter().map(row).collect();
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}

impl Rm {
    async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.policies, async |name| {
            let request = RemovePolicyRequest { name: name.into(), force: self.force };
            client.network().await?.remove_policy(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}

fn ports(text: &str) -> anyhow::Result<PolicyPorts> {
    let wrong = || format!("invalid port {text:?}: expected PORT[-END][/tcp|udp|sctp]");
    let (numbers, word) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = port::protocol(word).with_context(wrong)? as i32;
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().map(u32::from).with_context(wrong);
    Ok(PolicyPorts { protocol, first: number(first)?, last: number(last)? })
}

fn ports_text(ports: &PolicyPorts) -> String {
    let word = port::protocol_name(ports.protocol);
    match (ports.first, ports.last) {
        (first, last) if first == last || last == 0 => format!("{first}/{word}"),
        (first, last) => format!("{first}-{last}/{word}"),
    }
}

/// Labels in a fixed order; everybody has none.
fn selector(labels: &HashMap<String, String>) -> String {
    let mut all: Vec<String> = labels
        .iter()
        .map(|(key, value)| if value.is_empty() { key.clone() } else { format!("{key}={value}") })
        .collect();
    all.sort();
    all.join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_are_shown_as_they_are_written() {
        for (text, shown) in [("80", "80/tcp"), ("53/udp", "53/udp"), ("8000-8099", "8000-8099/tcp")] {
            assert_eq!(ports_text(&ports(text).unwrap()), shown);
        }
        for bad in ["", "80:80", "80/icmp", "70000", "1-x"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
