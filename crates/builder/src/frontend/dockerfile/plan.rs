//! Stages: where they begin, what they are based on, which of them the target needs.

use oci::Platform;
use std::collections::{BTreeMap, BTreeSet};

use super::arguments::Globals;
use super::diagnostic::{Diagnostic, Problem, nearest};
use super::instruction::{Instruction, Statement};
use super::{Dockerfile, NamedContext, Options};

/// What a stage begins with, or files are copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    Scratch,
    /// An earlier stage, by number.
    Stage(usize),
    /// An image.
    Image(ImageRequest),
    /// A named directory.
    Directory(String),
}

/// An image for a platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// As written, variables expanded.
    pub reference: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
}

/// One FROM and what follows it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// `AS name`.
    pub name: Option<String>,
    /// What it begins with.
    pub base: Origin,
    /// What it is built for.
    pub platform: Platform,
    /// The FROM itself.
    pub from: Statement,
    /// What follows.
    pub statements: Vec<Statement>,
}

/// A Dockerfile in stages.
#[derive(Debug)]
pub struct Plan {
    /// In order.
    pub stages: Vec<Stage>,
    /// Number of the stage to build.
    pub target: usize,
    /// Numbers of the stages it needs, itself included.
    pub needed: BTreeSet<usize>,
    pub(super) globals: Globals,
    contexts: BTreeMap<String, NamedContext>,
}

/// Cuts a Dockerfile into stages and finds what the target needs.
pub fn plan(file: &Dockerfile, options: &Options) -> Result<Plan, Diagnostic> {
    let place = |line, problem| Diagnostic::at(&file.file, &file.source, line, problem);
    let mut plan = Plan {
        stages: Vec::new(),
        target: 0,
        needed: BTreeSet::new(),
        globals: Globals::new(options),
        contexts: options.named_contexts.clone(),
    };
    for statement in &file.statements {
        plan.add(statement, file.directives.escape, options).map_err(|problem| place(statement.line, problem))?;
    }
    if plan.stages.is_empty() {
        let problem = Problem::new("the Dockerfile has no stage").hint("begin with FROM IMAGE");
        return Err(place(1, problem));
    }
    plan.target = plan.find_target(options).map_err(|problem| place(1, problem))?;
    plan.need(plan.target);
    Ok(plan)
}

impl Plan {
    fn add(&mut self, statement: &Statement, escape: char, options: &Options) -> Result<(), Problem> {
        match (&statement.instruction, self.stages.is_empty()) {
            (Instruction::From { image, name, platform }, _) => {
                let image = self.globals.expand(image, escape)?;
                if image.is_empty() {
                    return Err(Problem::new("the name of the base image is empty after expansion")
                        .hint("give the ARG before FROM a default"));
                }
                let platform = match platform {
                    Some(text) => self.platform(text, escape)?,
                    None => options.platform.clone(),
                };
                let base = self.origin(&image, &platform, self.stages.len());
                let statements = Vec::new();
                self.stages.push(Stage { name: name.clone(), base, platform, from: statement.clone(), statements });
            }
            (Instruction::Arg(pairs), true) => {
                for (name, default) in pairs {
                    self.globals.declare(name, default.as_deref(), escape)?;
                }
            }
            (_, true) => {
                return Err(Problem::new("no build stage yet: only ARG may stand before the first FROM"));
            }
            (_, false) => {
                if let Some(stage) = self.stages.last_mut() {
                    stage.statements.push(statement.clone());
                }
            }
        }
        Ok(())
    }

    fn platform(&self, text: &str, escape: char) -> Result<Platform, Problem> {
        let text = self.globals.expand(text, escape)?;
        text.parse().map_err(|_| Problem::new(format!("invalid platform {text:?}")).hint("write os/architecture"))
    }

    /// What a name means in stage `before`: a named context, an earlier stage, scratch, or an image.
    pub fn origin(&self, name: &str, platform: &Platform, before: usize) -> Origin {
        let lower = name.to_ascii_lowercase();
        match self.contexts.get(&lower) {
            Some(NamedContext::Directory(_)) => return Origin::Directory(lower),
            Some(NamedContext::Image(reference)) => return image(reference, platform),
            None => {}
        }
        let earlier = &self.stages[..before.min(self.stages.len())];
        match earlier.iter().rposition(|stage| stage.name.as_deref() == Some(lower.as_str())) {
            Some(index) => Origin::Stage(index),
            None if lower == "scratch" => Origin::Scratch,
            None => image(name, platform),
        }
    }

    /// The same for `--from`, where a number is a stage too.
    pub fn origin_of_files(&self, name: &str, platform: &Platform, before: usize) -> Origin {
        match name.parse::<usize>() {
            Ok(index) if index < before => Origin::Stage(index),
            _ => self.origin(name, platform, before),
        }
    }

    fn find_target(&self, options: &Options) -> Result<usize, Problem> {
        let Some(wanted) = options.target.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(self.stages.len() - 1);
        };
        let lower = wanted.to_ascii_lowercase();
        let by_name = self.stages.iter().rposition(|stage| stage.name.as_deref() == Some(lower.as_str()));
        let by_number = || lower.parse().ok().filter(|index| *index < self.stages.len());
        by_name.or_else(by_number).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
            let problem = Problem::new(format!("target stage {wanted:?} does not exist"));
            match nearest(&lower, &names) {
                Some(near) => problem.hint(format!("did you mean {near}?")),
                None if names.is_empty() => problem.hint("no stage has a name"),
                None => problem.hint(format!("the stages are {}", names.join(", "))),
            }
        })
    }

    fn need(&mut self, index: usize) {
        if !self.needed.insert(index) {
            return;
        }
        let stages: Vec<usize> = self.origins(index).into_iter().filter_map(stage_number).collect();
        for stage in stages {
            self.need(stage);
        }
    }

    /// Everything a stage takes files from, its base first.
    fn origins(&self, index: usize) -> Vec<Origin> {
        let stage = &self.stages[index];
        let mut names: Vec<&str> = Vec::new();
        for statement in &stage.statements {
            match &statement.instruction {
                Instruction::Copy(copy) | Instruction::Add(copy) => names.extend(copy.from.as_deref()),
                Instruction::Run(run) => names.extend(run.mounts.iter().map(|mount| mount.from.as_str())),
                _ => {}
            }
        }
        names.retain(|name| !name.is_empty());
        let others = names.into_iter().map(|name| self.origin_of_files(name, &stage.platform, index));
        std::iter::once(stage.base.clone()).chain(others).collect()
    }

    /// Lines of the FROMs that name images.
    pub fn lines(&self) -> BTreeMap<ImageRequest, usize> {
        let line = |stage: &Stage| match &stage.base {
            Origin::Image(request) => Some((request.clone(), stage.from.line)),
            _ => None,
        };
        self.stages.iter().rev().filter_map(line).collect()
    }

    /// The images that the target needs.
    pub fn images(&self) -> BTreeSet<ImageRequest> {
        let origins = self.needed.iter().flat_map(|index| self.origins(*index));
        origins.filter_map(|origin| if let Origin::Image(request) = origin { Some(request) } else { None }).collect()
    }
}

fn stage_number(origin: Origin) -> Option<usize> {
    if let Origin::Stage(index) = origin { Some(index) } else { None }
}

fn image(reference: &str, platform: &Platform) -> Origin {
    let reference = reference.strip_prefix("docker-image://").unwrap_or(reference).to_owned();
    Origin::Image(ImageRequest { reference, platform: platform.to_string() })
}
