//! Rules for `proto/`, and the comparison with the released protocol: what a client was built against stays.
use crate::proto::{descriptors, workspace};
use anyhow::{Context, Result, ensure};
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::collections::BTreeMap;

/// Fails on a broken rule or on a change that breaks clients of the released protocol.
pub fn check() -> Result<()> {
    let now = descriptors()?;
    let mut problems: Vec<String> = now.file.iter().filter(|f| ours(f)).flat_map(rules).collect();
    let path = workspace().join("proto/released.bin");
    let released =
        FileDescriptorSet::decode(std::fs::read(&path).with_context(|| path.display().to_string())?.as_slice())?;
    problems.extend(breaking(&released, &now));
    ensure!(problems.is_empty(), "proto:\n{}", problems.join("\n"));
    Ok(())
}

/// Makes the present protocol the released one.
pub fn release() -> Result<()> {
    let mut set = descriptors()?;
    set.file.iter_mut().for_each(|f| f.source_code_info = None);
    Ok(std::fs::write(workspace().join("proto/released.bin"), set.encode_to_vec())?)
}

fn ours(file: &FileDescriptorProto) -> bool {
    file.package().starts_with("pier.")
}

fn rules(file: &FileDescriptorProto) -> Vec<String> {
    let mut out = Vec::new();
    let at = |name: &str| format!("{}: {name}", file.name());
    let place = file.package().replace('.', "/");
    if !file.name().starts_with(&place) || !file.package().split('.').next_back().is_some_and(|v| v.starts_with('v')) {
        out.push(at("the folder is not the package, or the package has no version"));
    }
    let mut uses: BTreeMap<&str, u32> = BTreeMap::new();
    for service in &file.service {
        for method in &service.method {
            *uses.entry(method.input_type()).or_default() += 1;
            *uses.entry(method.output_type()).or_default() += 1;
            let own = |kind: &str| format!(".{}.{}{kind}", file.package(), method.name());
            if method.input_type() != own("Request") || method.output_type() != own("Response") {
                out.push(at(&format!("{} needs its own {0}Request and {0}Response", method.name())));
            }
        }
    }
    out.extend(uses.iter().filter(|(_, n)| **n > 1).map(|(t, _)| at(&format!("{t} serves two RPCs"))));
    out.extend(file.enum_type.iter().flat_map(enum_rules).map(|p| at(&p)));
    out.extend(file.message_type.iter().flat_map(message_rules).map(|p| at(&p)));
    out.extend(comments(file).into_iter().map(|p| at(&p)));
    out
}

fn message_rules(message: &DescriptorProto) -> Vec<String> {
    let snake = |n: &str| n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let bad = message.field.iter().filter(|f| !snake(f.name()));
    bad.map(|f| format!("{}.{} is not snake_case", message.name(), f.name())).collect()
}

fn enum_rules(e: &EnumDescriptorProto) -> Vec<String> {
    let prefix: String = e
        .name()
        .char_indices()
        .flat_map(|(i, c)| {
            let gap = if i > 0 && c.is_uppercase() { "_" } else { "" };
            format!("{gap}{}", c.to_ascii_uppercase()).chars().collect::<Vec<_>>()
        })
        .collect();
    let mut out = Vec::new();
    if e.value.first().map(|v| (v.number(), v.name().to_string())) != Some((0, format!("{prefix}_UNSPECIFIED"))) {
        out.push(format!("{}: value 0 must be {prefix}_UNSPECIFIED", e.name()));
    }
    let odd = e.value.iter().filter(|v| !v.name().starts_with(&prefix));
    out.extend(odd.map(|v| format!("{}.{} lacks the prefix {prefix}", e.name(), v.name())));
    out
}

/// Services, and messages that are no plain request or response, carry a comment. Paths: descriptor.proto, SourceCodeInfo.
fn comments(file: &FileDescriptorProto) -> Vec<String> {
    let info = file.source_code_info.clone().unwrap_or_default();
    let has = |path: &[i32]| info.location.iter().any(|l| l.path == path && !l.leading_comments().trim().is_empty());
    let package = info.location.iter().any(|l| l.path == [2] && !l.leading_comments().trim().is_empty());
    let mut out = Vec::new();
    if !package {
        out.push("the package line needs a comment that says what the service is for".to_string());
    }
    for (i, e) in file.enum_type.iter().enumerate() {
        if file.package() == "pier.types.v1" && !has(&[5, i as i32]) {
            out.push(format!("enum {} has no comment", e.name()));
        }
    }
    for (i, m) in file.message_type.iter().enumerate() {
        if file.package() == "pier.types.v1" && !has(&[4, i as i32]) {
            out.push(format!("message {} has no comment", m.name()));
        }
    }
    out
}

/// What an old client would stumble over.
fn breaking(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let (old, new) = (Index::of(old), Index::of(new));
    old.0
        .iter()
        .filter_map(|(key, was)| match new.0.get(key) {
            None => Some(format!("{key} was released and is gone (a break needs v2)")),
            Some(is) if is != was => Some(format!("{key} was {was}, is {is} (a break needs v2)")),
            Some(_) => None,
        })
        .collect()
}

/// Everything that is on the wire: methods by path, fields by number, enum values by number.
struct Index(BTreeMap<String, String>);

impl Index {
    fn of(set: &FileDescriptorSet) -> Self {
        let mut all = BTreeMap::new();
        for file in set.file.iter().filter(|f| ours(f)) {
            for s in &file.service {
                for m in &s.method {
                    let shape = format!(
                        "{} {} → {} {}",
                        m.client_streaming(),
                        m.input_type(),
                        m.server_streaming(),
                        m.output_type()
                    );
                    all.insert(format!("rpc {}.{}/{}", file.package(), s.name(), m.name()), shape);
                }
            }
            for e in &file.enum_type {
                for v in &e.value {
                    all.insert(format!("enum {}.{} {}", file.package(), e.name(), v.number()), v.name().into());
                }
            }
            for m in &file.message_type {
                for f in &m.field {
                    let shape = format!("{} {:?} {:?} {}", f.name(), f.label(), f.r#type(), f.type_name());
                    all.insert(format!("field {}.{} {}", file.package(), m.name(), f.number()), shape);
                }
            }
        }
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_or_changed_field_is_a_break() -> Result<()> {
        let now = descriptors()?;
        assert!(breaking(&now, &now).is_empty());
        let mut changed = now.clone();
        let message = changed.file.iter_mut().find(|f| f.package() == "pier.volume.v1").context("volume")?;
        let message = message.message_type.iter_mut().find(|m| m.name() == "Volume").context("Volume")?;
        message.field.retain(|f| f.name() != "labels");
        message.field[0].name = Some("title".into());
        let found = breaking(&now, &changed);
        assert!(found.iter().any(|p| p.contains("pier.volume.v1.Volume 4 was released and is gone")), "{found:?}");
        assert!(found.iter().any(|p| p.contains("was name")), "{found:?}");
        Ok(())
    }
}
