//! COPY, ADD and WORKDIR: file operations.

use bollard_buildkit_proto::pb;
use pb::file_action::Action;

use super::diagnostic::Problem;
use super::instruction::Copy;
use super::lex::Heredoc;
use super::lower::{Lowering, Site};
use super::stage::State;
use crate::llb::{About, Edge};

type Result<T> = std::result::Result<T, Problem>;

/// Lowers COPY, or ADD when `unpack`.
pub(super) fn copy(
    lowering: &mut Lowering<'_>,
    state: &mut State,
    copy: &Copy,
    unpack: bool,
    site: &Site<'_>,
) -> Result<()> {
    let destination = state.word(&copy.destination)?;
    let sources = copy.sources.iter().map(|source| state.word(source)).collect::<Result<Vec<_>>>()?;
    if sources.len() + copy.inline.len() > 1 && !destination.ends_with('/') {
        let problem = Problem::new("several sources need a directory as destination");
        return Err(problem.hint(format!("end it with a slash: {destination}/")));
    }
    if unpack && let Some(url) = sources.iter().find(|source| is_remote(source)) {
        let problem = Problem::new(format!("ADD of the URL {url} is not supported"));
        return Err(problem.hint("fetch it in a RUN step, or add the file to the build context"));
    }
    let owner = copy.chown.as_deref().map(|text| state.word(text)).transpose()?;
    let owner = owner.as_deref().map(chown).transpose()?;
    let mode = copy.chmod.as_deref().map(|text| state.word(text)).transpose()?;
    let mode = mode.as_deref().map_or(Ok(-1), chmod)?;
    let template = pb::FileActionCopy {
        dest: state.absolute(&destination),
        owner,
        mode,
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack_docker_compatibility: unpack,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: -1,
        exclude_patterns: copy.exclude.iter().map(|text| state.word(text)).collect::<Result<_>>()?,
        ..Default::default()
    };
    let mut batches = Vec::new();
    if !sources.is_empty() {
        let from = match &copy.from {
            Some(name) => lowering.files_of(name, site)?,
            None => Some(lowering.context()),
        };
        let from = from.ok_or_else(|| Problem::new("there is nothing to copy from scratch"))?;
        batches.push((from, sources.iter().map(|source| inside(source)).collect::<Vec<_>>()));
    }
    if !copy.inline.is_empty() {
        let names = copy.inline.iter().map(|doc| format!("/{}", doc.name)).collect();
        batches.push((inline(lowering, state, &copy.inline, site)?, names));
    }
    let edge = apply(lowering, state.root.as_ref(), &batches, &template, site, &state.platform);
    state.root = Some(edge.clone());
    let verb = if unpack { "ADD" } else { "COPY" };
    let shown: Vec<&str> =
        sources.iter().map(String::as_str).chain(copy.inline.iter().map(|doc| doc.name.as_str())).collect();
    state.note(format!("{verb} {} {destination}", shown.join(" ")), Some(&edge));
    Ok(())
}

/// One file operation that copies from several inputs on top of `base`.
fn apply(
    lowering: &mut Lowering<'_>,
    base: Option<&Edge>,
    batches: &[(Edge, Vec<String>)],
    template: &pb::FileActionCopy,
    site: &Site<'_>,
    platform: &pb::Platform,
) -> Edge {
    let mut inputs: Vec<Edge> = base.cloned().into_iter().collect();
    let first_source = inputs.len();
    inputs.extend(batches.iter().map(|(edge, _)| edge.clone()));
    let mut actions = Vec::new();
    for (number, (_, sources)) in batches.iter().enumerate() {
        for src in sources {
            let action = Action::Copy(pb::FileActionCopy { src: src.clone(), ..template.clone() });
            actions.push((index(first_source + number), action));
        }
    }
    let about = lowering.about(site);
    file_op(lowering, &inputs, base.is_some(), actions, platform, about)
}

/// Chains actions: each works on what the one before left, the last one's result is the output.
fn file_op(
    lowering: &mut Lowering<'_>,
    inputs: &[Edge],
    has_base: bool,
    actions: Vec<(i64, Action)>,
    platform: &pb::Platform,
    about: About,
) -> Edge {
    let count = actions.len();
    let actions = actions.into_iter().enumerate().map(|(number, (secondary_input, action))| pb::FileAction {
        input: match number {
            0 if has_base => 0,
            0 => -1,
            _ => index(inputs.len() + number - 1),
        },
        secondary_input,
        output: if number + 1 == count { 0 } else { -1 },
        action: Some(action),
    });
    let op = pb::op::Op::File(pb::FileOp { actions: actions.collect() });
    lowering.writer.add(inputs, Some(platform), op, about)
}

/// `path` of a directory (all of it: "/") as a filesystem.
pub(super) fn subtree(lowering: &mut Lowering<'_>, source: &Edge, path: &str, about: About) -> Edge {
    let copy = pb::FileActionCopy {
        src: path.into(),
        dest: path.into(),
        mode: -1,
        dir_copy_contents: true,
        create_dest_path: true,
        timestamp: -1,
        ..Default::default()
    };
    let platform = pb::Platform::default();
    file_op(lowering, std::slice::from_ref(source), false, vec![(0, Action::Copy(copy))], &platform, about)
}

/// A filesystem that has the here-documents as files.
pub(super) fn inline(
    lowering: &mut Lowering<'_>,
    state: &mut State,
    docs: &[Heredoc],
    site: &Site<'_>,
) -> Result<Edge> {
    let mut actions = Vec::new();
    for doc in docs {
        let content = if doc.expand { state.document(&doc.content)? } else { doc.content.clone() };
        actions.push((-1, script(&doc.name, content, 0o644)));
    }
    let about = About { name: format!("[internal] here-documents of {}", site.statement.text), ..lowering.about(site) };
    Ok(file_op(lowering, &[], false, actions, &state.platform, about))
}

fn script(name: &str, content: String, mode: i32) -> Action {
    Action::Mkfile(pb::FileActionMkFile {
        path: format!("/{name}"),
        mode,
        data: content.into_bytes(),
        owner: None,
        timestamp: 0,
    })
}

/// A filesystem with one executable file.
pub(super) fn executable(lowering: &mut Lowering<'_>, name: &str, content: String, site: &Site<'_>) -> Edge {
    let about = About { name: format!("[internal] script of {}", site.statement.text), ..lowering.about(site) };
    file_op(lowering, &[], false, vec![(-1, script(name, content, 0o755))], &pb::Platform::default(), about)
}

/// Lowers WORKDIR: the directory is made when it is not there.
pub(super) fn workdir(lowering: &mut Lowering<'_>, state: &mut State, path: &str, site: &Site<'_>) -> Result<()> {
    let path = state.word(path)?;
    if path.is_empty() {
        return Err(Problem::new("WORKDIR is empty after expansion"));
    }
    let path = state.absolute(path.trim_end_matches('/'));
    let path = if path.is_empty() { "/".to_owned() } else { path };
    state.config.config.working_dir.clone_from(&path);
    if path == "/" {
        state.note("WORKDIR /", None);
        return Ok(());
    }
    let mkdir = pb::FileActionMkDir { path: path.clone(), mode: 0o755, make_parents: true, owner: None, timestamp: -1 };
    let inputs: Vec<Edge> = state.root.clone().into_iter().collect();
    let actions = vec![(-1, Action::Mkdir(mkdir))];
    let about = lowering.about(site);
    let edge = file_op(lowering, &inputs, state.root.is_some(), actions, &state.platform, about);
    state.root = Some(edge.clone());
    state.note(format!("WORKDIR {path}"), Some(&edge));
    Ok(())
}

/// A source path, which never leaves its root.
pub(super) fn inside(path: &str) -> String {
    crate::fs::ignore::clean(&format!("/{path}"))
}

fn index(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|scheme| source.starts_with(scheme))
}

fn chown(text: &str) -> Result<pb::ChownOpt> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if user.is_empty() && group.unwrap_or_default().is_empty() {
        return Err(Problem::new(format!("invalid --chown {text:?}")).hint("write --chown=user[:group]"));
    }
    let option = |name: &str| {
        let user = match name.parse() {
            Ok(id) => pb::user_opt::User::ById(id),
            Err(_) => pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.to_owned(), input: 0 }),
        };
        Some(pb::UserOpt { user: Some(user) })
    };
    let named = |name: &str| if name.is_empty() { None } else { option(name) };
    Ok(pb::ChownOpt { user: named(user), group: group.and_then(named) })
}

fn chmod(text: &str) -> Result<i32> {
    let mode = i32::from_str_radix(text, 8).ok().filter(|mode| (0..=0o7777).contains(mode));
    mode.ok_or_else(|| Problem::new(format!("invalid --chmod {text:?}")).hint("write octal digits: --chmod=755"))
}
