//! Limits as values for files: what the plans of both cgroup versions are made of. Pure.

/// What it means when a value cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The verb fails.
    Must,
    /// Nothing: a later write says it again, or only some kernels know it.
    Try,
    /// Nothing where the file does not exist; else the verb fails.
    IfThere,
    /// A warning where the file does not exist; else the verb fails.
    WarnIfAbsent,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The controller whose directory has the file.
    pub controller: String,
    /// The file.
    pub file: String,
    /// What to write, in one write(2).
    pub value: String,
    /// What a failure means.
    pub need: Need,
}

/// An ordered list of settings.
#[derive(Debug, Default)]
pub(super) struct Plan(pub Vec<Setting>);

impl Plan {
    pub(super) fn add(&mut self, need: Need, file: &str, value: impl ToString) {
        let controller = file.split('.').next().unwrap_or_default().to_owned();
        self.0.push(Setting { controller, file: file.to_owned(), value: value.to_string(), need });
    }

    pub(super) fn must(&mut self, file: &str, value: impl ToString) {
        self.add(Need::Must, file, value);
    }
}

/// -1 means no limit.
pub(super) fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// 0 means "not set" in most numbers of the configuration.
pub(super) fn set<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|v| *v != T::default())
}
