//! From stages to LLB and an image configuration.

use bollard_buildkit_proto::pb;
use oci::image::History;
use oci::{ImageConfig, Platform};
use std::collections::BTreeMap;

use super::diagnostic::{Diagnostic, Problem};
use super::instruction::{Instruction, Statement};
use super::plan::{ImageRequest, Origin, Plan, Stage};
use super::stage::State;
use super::{Dockerfile, Images, Options, files, metadata, parse, run};
use crate::llb::{About, Edge, Writer};

/// Name of the vertex that is the build context.
pub const CONTEXT_VERTEX: &str = "[internal] load build context";

/// A line of the image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The instruction.
    pub created_by: String,
    /// Digest of the vertex that may have made a layer.
    pub vertex: Option<String>,
}

/// A Dockerfile as a graph.
#[derive(Debug)]
pub struct Lowered {
    /// The graph; its target is the filesystem of the image.
    pub definition: pb::Definition,
    /// The image's configuration but for layers, history and dates.
    pub config: ImageConfig,
    /// History of the base image.
    pub base_history: Vec<History>,
    /// Digest of the vertex that is the base image; none: scratch.
    pub base_vertex: Option<String>,
    /// History of the instructions.
    pub history: Vec<HistoryEntry>,
    /// For people.
    pub warnings: Vec<String>,
}

/// Lowers the stages that the target needs. `images` must hold what [`Plan::images`] names.
pub fn lower(file: &Dockerfile, plan: &Plan, options: &Options, images: &Images) -> Result<Lowered, Diagnostic> {
    let mut lowering = Lowering {
        file,
        plan,
        options,
        images,
        writer: Writer::default(),
        states: BTreeMap::new(),
        warnings: file.warnings.clone(),
    };
    for index in &plan.needed {
        lowering.stage(*index)?;
    }
    lowering.finish()
}

/// The work of [`lower`].
pub(super) struct Lowering<'a> {
    file: &'a Dockerfile,
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
    images: &'a Images,
    pub(super) writer: Writer,
    states: BTreeMap<usize, State>,
    warnings: Vec<String>,
}

/// The instruction that is being lowered.
pub(super) struct Site<'a> {
    /// Number of the stage.
    pub(super) stage: usize,
    /// What it is built for.
    pub(super) platform: &'a Platform,
    /// "[build 2/3] "
    prefix: String,
    /// The instruction.
    pub(super) statement: &'a Statement,
}

impl Lowering<'_> {
    fn place(&self, statement: &Statement) -> impl FnOnce(Problem) -> Diagnostic + use<> {
        let (file, source, line) = (self.file.file.clone(), self.file.source.clone(), statement.line);
        move |problem| Diagnostic::at(&file, &source, line, problem)
    }

    fn stage(&mut self, index: usize) -> Result<(), Diagnostic> {
        let plan = self.plan;
        let stage = &plan.stages[index];
        let mut counter = Counter::new(plan, index);
        let site = counter.site(index, stage, &stage.from, true);
        let mut state = self.base(stage, &site).map_err(self.place(&stage.from))?;
        let triggers = self.triggers(&mut state, stage)?;
        counter.total += triggers.iter().filter(|statement| makes_files(&statement.instruction)).count();
        for statement in triggers.iter().chain(&stage.statements) {
            let site = counter.site(index, stage, statement, makes_files(&statement.instruction));
            self.instruction(&mut state, &site).map_err(self.place(statement))?;
            for name in std::mem::take(&mut state.undefined) {
                self.warnings.push(format!("{}:{}: variable {name} is not defined", self.file.file, statement.line));
            }
        }
        self.states.insert(index, state);
        Ok(())
    }

    fn base(&mut self, stage: &Stage, site: &Site<'_>) -> Result<State, Problem> {
        let mut state = match &stage.base {
            Origin::Stage(earlier) => match self.states.get(earlier) {
                Some(state) => State { own_cmd: false, ..state.clone() },
                None => return Err(Problem::new("the stage it is based on was not built")),
            },
            _ => self.fresh(&stage.platform),
        };
        match &stage.base {
            Origin::Image(request) => {
                let about = About { name: format!("{}FROM {}", site.prefix, request.reference), ..self.about(site) };
                state.root = Some(self.image(request, &about));
                if let Some(found) = self.images.get(request) {
                    state.base_history.clone_from(&found.config.history);
                    state.config = ImageConfig { history: Vec::new(), created: None, ..found.config.clone() };
                }
            }
            Origin::Directory(name) => {
                let source = self.directory(name);
                state.root = Some(files::subtree(self, &source, "/", self.about(site)));
            }
            Origin::Scratch | Origin::Stage(_) => {}
        }
        if !matches!(stage.base, Origin::Stage(_)) {
            state.base.clone_from(&state.root);
        }
        Ok(state)
    }

    fn fresh(&self, platform: &Platform) -> State {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: Some(platform.variant.clone()).filter(|variant| !variant.is_empty()),
            ..ImageConfig::default()
        };
        config.config.working_dir = "/".into();
        State {
            root: None,
            config,
            args: Vec::new(),
            base: None,
            base_history: Vec::new(),
            history: Vec::new(),
            own_cmd: false,
            platform: llb_platform(platform),
            escape: self.file.directives.escape,
            undefined: Vec::new(),
        }
    }

    /// ONBUILD instructions of the base image are ours now.
    fn triggers(&self, state: &mut State, stage: &Stage) -> Result<Vec<Statement>, Diagnostic> {
        if !matches!(stage.base, Origin::Image(_) | Origin::Stage(_)) {
            return Ok(Vec::new());
        }
        let texts = std::mem::take(&mut state.config.config.on_build);
        let statement = |text: String| {
            let instruction = parse::parse_one(&text, '\\').map_err(|problem| Problem {
                message: format!("ONBUILD instruction {text:?} of the base image: {}", problem.message),
                ..problem
            })?;
            Ok(Statement { line: stage.from.line, end: stage.from.end, text, instruction })
        };
        texts.into_iter().map(statement).collect::<Result<_, Problem>>().map_err(self.place(&stage.from))
    }

    fn instruction(&mut self, state: &mut State, site: &Site<'_>) -> Result<(), Problem> {
        match &site.statement.instruction {
            Instruction::Add(copy) => files::copy(self, state, copy, true, site),
            Instruction::Copy(copy) => files::copy(self, state, copy, false, site),
            Instruction::Workdir(path) => files::workdir(self, state, path, site),
            Instruction::Run(command) => run::run(self, state, command, site),
            Instruction::Arg(pairs) => self.arg(state, pairs),
            other => metadata::apply(state, other).map(drop),
        }
    }

    fn arg(&mut self, state: &mut State, pairs: &[(String, Option<String>)]) -> Result<(), Problem> {
        for (name, default) in pairs {
            let default = default.as_deref().map(|text| state.word(text)).transpose()?;
            let text = default.as_ref().map_or_else(|| name.clone(), |default| format!("{name}={default}"));
            if let Some(value) = self.plan.globals.value(name, default) {
                state.set_arg(name, &value);
            }
            state.note(format!("ARG {text}"), None);
        }
        Ok(())
    }

    /// How a vertex of this instruction presents itself.
    pub(super) fn about(&self, site: &Site<'_>) -> About {
        About {
            name: format!("{}{}", site.prefix, site.statement.text),
            lines: Some((site.statement.line, site.statement.end)),
            no_cache: self.options.no_cache,
        }
    }

    /// The filesystem that `name` of `--from` means.
    pub(super) fn files_of(&mut self, name: &str, site: &Site<'_>) -> Result<Option<Edge>, Problem> {
        match self.plan.origin_of_files(name, site.platform, site.stage) {
            Origin::Scratch => Ok(None),
            Origin::Directory(name) => Ok(Some(self.directory(&name))),
            Origin::Image(request) => {
                let about = About { name: format!("[internal] FROM {}", request.reference), ..self.about(site) };
                Ok(Some(self.image(&request, &about)))
            }
            Origin::Stage(index) => match self.states.get(&index) {
                Some(state) => Ok(state.root.clone()),
                None => Err(Problem::new(format!("stage {name} was not built"))),
            },
        }
    }

    /// Whether `name` of `--from` is a directory of the host.
    pub(super) fn is_directory(&self, name: &str, site: &Site<'_>) -> bool {
        matches!(self.plan.origin_of_files(name, site.platform, site.stage), Origin::Directory(_))
    }

    fn image(&mut self, request: &ImageRequest, about: &About) -> Edge {
        let reference = self.images.get(request).map_or(&request.reference, |found| &found.pinned);
        let source = pb::SourceOp { identifier: format!("docker-image://{reference}"), attrs: BTreeMap::new() };
        let platform = request.platform.parse().ok().map(|platform| llb_platform(&platform));
        self.writer.add(&[], platform.as_ref(), pb::op::Op::Source(source), about.clone())
    }

    /// The build context.
    pub(super) fn context(&mut self) -> Edge {
        let excludes = serde_json::to_string(&self.options.excludes).unwrap_or_default();
        let mut attrs = BTreeMap::new();
        if !self.options.excludes.is_empty() {
            attrs.insert("local.excludepatterns".to_owned(), excludes);
        }
        let source = pb::SourceOp { identifier: "local://context".into(), attrs };
        let about = About { name: CONTEXT_VERTEX.into(), ..About::default() };
        self.writer.add(&[], None, pb::op::Op::Source(source), about)
    }

    fn directory(&mut self, name: &str) -> Edge {
        let source = pb::SourceOp { identifier: format!("local://{name}"), attrs: BTreeMap::new() };
        let about = About { name: format!("[internal] load context {name}"), ..About::default() };
        self.writer.add(&[], None, pb::op::Op::Source(source), about)
    }

    fn finish(mut self) -> Result<Lowered, Diagnostic> {
        let from = &self.plan.stages[self.plan.target].from;
        let Some(mut state) = self.states.remove(&self.plan.target) else {
            return Err(self.place(from)(Problem::new("the target stage was not built")));
        };
        state.config.config.labels.extend(self.options.labels.clone());
        for name in self.plan.globals.unused() {
            self.warnings.push(format!("build argument {name} was not used"));
        }
        let definition = match &state.root {
            Some(root) => self.writer.finish(root, &self.file.file, &self.file.source),
            None => pb::Definition::default(),
        };
        Ok(Lowered {
            definition,
            config: state.config,
            base_history: state.base_history,
            base_vertex: state.base.map(|edge| edge.digest),
            history: state.history,
            warnings: self.warnings,
        })
    }
}

/// Whether an instruction becomes a vertex.
fn makes_files(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_))
}

/// Numbers the steps of a stage.
struct Counter {
    label: String,
    step: usize,
    total: usize,
}

impl Counter {
    fn new(plan: &Plan, index: usize) -> Self {
        let stage = &plan.stages[index];
        let label = match &stage.name {
            Some(name) => format!("{name} "),
            None if plan.stages.len() > 1 => format!("stage-{index} "),
            None => String::new(),
        };
        let steps = stage.statements.iter().filter(|statement| makes_files(&statement.instruction)).count();
        Self { label, step: 0, total: steps + 1 }
    }

    fn site<'a>(&mut self, index: usize, stage: &'a Stage, statement: &'a Statement, counts: bool) -> Site<'a> {
        self.step += usize::from(counts);
        let prefix = format!("[{}{}/{}] ", self.label, self.step, self.total);
        Site { stage: index, platform: &stage.platform, prefix, statement }
    }
}

fn llb_platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
