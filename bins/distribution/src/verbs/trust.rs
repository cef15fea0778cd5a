//! Verbs of keys, signatures and attestations.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use console::{Format, Table};
use distribution::trust::key::{Kind, PrivateKey, PublicKey};
use distribution::trust::place::{Place, locate};
use distribution::trust::{self, Form, attestation};

use super::registry_options;
use crate::args::{Key, KeyKind, ListAttestations, Passphrase, Registry, Sign, Verify};

pub fn key(verb: &Key) -> anyhow::Result<u8> {
    let Key::Generate { kind, output, passphrase } = verb;
    let kind = match kind {
        KeyKind::Ecdsa => Kind::EcdsaP256,
        KeyKind::Ed25519 => Kind::Ed25519,
    };
    let (private, public) = (with_suffix(output, "key"), with_suffix(output, "pub"));
    let key = PrivateKey::generate(kind);
    write_new(&private, 0o600, &key.to_pem(&secret(passphrase)?)?)?;
    write_new(&public, 0o644, &key.public().to_pem()?)?;
    println!("{}\n{}", private.display(), public.display());
    Ok(0)
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A key is never overwritten.
fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = std::fs::File::options().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.with_context(|| format!("write {}", path.display()))
}

fn secret(given: &Passphrase) -> anyhow::Result<Vec<u8>> {
    let Some(path) = &given.passphrase_file else {
        return Ok(std::env::var("COSIGN_PASSWORD").unwrap_or_default().into_bytes());
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().next().unwrap_or_default().as_bytes().to_vec())
}

async fn place(text: &str, registry: &Registry) -> anyhow::Result<Place> {
    Ok(Place::open(locate(text)?, &registry_options(registry)?, &std::env::temp_dir()).await?)
}

pub async fn sign(verb: &Sign) -> anyhow::Result<u8> {
    let key = PrivateKey::load(&verb.key, &secret(&verb.passphrase)?)?;
    let place = place(&verb.image, &verb.registry).await?;
    let name = verb.identity.clone().or_else(|| place.identity());
    let name = name.context("a layout's image has no name of its own: give --identity NAME")?;
    let form = if verb.referrer { Form::Referrer } else { Form::Tag };
    let wanted = trust::Sign { key: &key, name, form, all: verb.all };
    let signed = place.sign(&wanted).await;
    let signed = signed.with_context(|| format!("sign {}", verb.image))?;
    match verb.format.format {
        Format::Json => console::print_json(&serde_json::json!({"signed": signed, "identity": wanted.name}))?,
        Format::Table => signed.iter().for_each(|digest| println!("{digest}")),
    }
    Ok(0)
}

fn keys(paths: &[PathBuf]) -> anyhow::Result<Vec<PublicKey>> {
    Ok(paths.iter().map(|path| PublicKey::load(path)).collect::<Result<_, _>>()?)
}

pub async fn verify(verb: &Verify) -> anyhow::Result<u8> {
    let keys = keys(&verb.key)?;
    let found = place(&verb.image, &verb.registry).await?.verify(&keys, verb.identity.as_deref()).await;
    let found = found.with_context(|| format!("verify {}", verb.image))?;
    match verb.format.format {
        Format::Json => console::print_json(&found)?,
        Format::Table => println!("{} is signed as {} by {} ({})", found.digest, found.name, found.key, found.place),
    }
    Ok(0)
}

pub async fn attestations(verb: &ListAttestations) -> anyhow::Result<u8> {
    let keys = keys(&verb.key)?;
    let place = place(&verb.image, &verb.registry).await?;
    let all = place.attestations(&keys, verb.predicate_type.as_deref()).await;
    let all = all.with_context(|| format!("look for attestations of {}", verb.image))?;
    let good = keys.is_empty() || all.iter().any(|one| one.names_subject && one.verified_by.is_some());
    match verb.format.format {
        Format::Json => console::print_json(&all)?,
        Format::Table => print(&all)?,
    }
    match good {
        true => Ok(0),
        false => anyhow::bail!("no attestation of {} is signed by the given keys", verb.image),
    }
}

fn print(all: &[attestation::Attestation]) -> anyhow::Result<()> {
    let mut table = Table::new(["PREDICATE TYPE", "ABOUT", "SIGNED", "VERIFIED BY", "PLACE"]);
    for one in all {
        let signed = match (one.names_subject, one.signed) {
            (false, _) => "about something else",
            (true, true) => "yes",
            (true, false) => "no",
        };
        table.row([
            one.predicate_type.clone(),
            one.subject.short().into(),
            signed.into(),
            one.verified_by.clone().unwrap_or_else(|| "-".into()),
            one.place.clone(),
        ]);
    }
    table.print()?;
    Ok(())
}
