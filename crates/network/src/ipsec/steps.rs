//! From what the kernel has to what it is to have: pure functions.

use std::fmt;

use super::{Association, Keys, Policy, Rule};

/// What the kernel is to have, or has, of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture<A> {
    pub(crate) associations: Vec<A>,
    pub(crate) policies: Vec<Policy>,
}

impl<A> Default for Picture<A> {
    fn default() -> Self {
        Self { associations: Vec::new(), policies: Vec::new() }
    }
}

/// One change of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    AddPolicy(Policy),
    /// Another rule in a policy's place.
    ChangePolicy {
        from: Policy,
        to: Policy,
    },
    RemovePolicy(Policy),
    AddAssociation(Association, Keys),
    RemoveAssociation(Association),
}

impl Step {
    /// What is wrong without it.
    pub(crate) fn fault(&self) -> String {
        match self {
            Self::AddPolicy(policy) => format!("{policy} is missing"),
            Self::ChangePolicy { from, .. } => format!("{from} is out of date"),
            Self::RemovePolicy(policy) => format!("{policy} is for nobody"),
            Self::AddAssociation(association, _) => format!("{association} is missing"),
            Self::RemoveAssociation(association) => format!("{association} is for nobody"),
        }
    }

    /// The step back; none for what cannot be known any more.
    pub(crate) fn back(&self) -> Option<Self> {
        match self {
            Self::AddPolicy(policy) => Some(Self::RemovePolicy(policy.clone())),
            Self::ChangePolicy { from, to } => Some(Self::ChangePolicy { from: to.clone(), to: from.clone() }),
            Self::AddAssociation(association, _) => Some(Self::RemoveAssociation(association.clone())),
            Self::RemovePolicy(_) | Self::RemoveAssociation(_) => None,
        }
    }

    pub(crate) fn removes(&self) -> bool {
        matches!(self, Self::RemovePolicy(_) | Self::RemoveAssociation(_))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddPolicy(policy) => write!(f, "add {policy}"),
            Self::ChangePolicy { to, .. } => write!(f, "change {to}"),
            Self::RemovePolicy(policy) => write!(f, "remove {policy}"),
            Self::AddAssociation(association, _) => write!(f, "add {association}"),
            Self::RemoveAssociation(association) => write!(f, "remove {association}"),
        }
    }
}

/// The steps from one picture to another. At no moment between them does a packet pass that neither picture lets pass, and
/// a packet that both let pass is not lost: what blocks comes first and goes last, and who sends by another association
/// does so when it is there.
pub(crate) fn steps(wanted: &Picture<(Association, Keys)>, found: &Picture<Association>) -> Vec<Step> {
    let mut steps = Vec::new();
    let (blocks, protected): (Vec<&Policy>, _) = wanted.policies.iter().partition(|policy| policy.rule == Rule::Block);
    steps.extend(blocks.into_iter().filter_map(|policy| place(policy, found)));
    let missing = wanted.associations.iter().filter(|(association, _)| !found.associations.contains(association));
    steps.extend(missing.map(|(association, keys)| Step::AddAssociation(association.clone(), keys.clone())));
    steps.extend(protected.into_iter().filter_map(|policy| place(policy, found)));

    let unwanted = found.policies.iter().filter(|policy| !wanted.policies.iter().any(|other| other.is_about(policy)));
    let (blocks, protected): (Vec<&Policy>, _) = unwanted.partition(|policy| policy.rule == Rule::Block);
    steps.extend(protected.into_iter().chain(blocks).map(|policy| Step::RemovePolicy(policy.clone())));
    let unwanted = found.associations.iter().filter(|one| !wanted.associations.iter().any(|(other, _)| other == *one));
    steps.extend(unwanted.map(|association| Step::RemoveAssociation(association.clone())));
    steps
}

fn place(policy: &Policy, found: &Picture<Association>) -> Option<Step> {
    match found.policies.iter().find(|other| other.is_about(policy)) {
        None => Some(Step::AddPolicy(policy.clone())),
        Some(other) if other.rule == policy.rule => None,
        Some(other) => Some(Step::ChangePolicy { from: other.clone(), to: policy.clone() }),
    }
}

impl Policy {
    /// Whether both are about the same packets: the kernel has one place for them.
    fn is_about(&self, other: &Self) -> bool {
        (self.direction, self.from, self.to) == (other.direction, other.from, other.to)
    }
}
