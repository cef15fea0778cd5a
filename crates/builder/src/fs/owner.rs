//! `--chown` by the users and groups of the filesystem that is copied to.

use bollard_buildkit_proto::pb;
use oci::user;

use super::root::Root;
use crate::error::Error;

/// User and group ids that `option` means in `root`. A user by number without a group has the group of that number.
pub fn resolve(option: &pb::ChownOpt, root: &Root) -> Result<(u32, u32), Error> {
    let passwd = root.read_text("/etc/passwd")?;
    let group = root.read_text("/etc/group")?;
    let text = |option: &Option<pb::UserOpt>| match option.as_ref().and_then(|option| option.user.as_ref()) {
        Some(pb::user_opt::User::ById(id)) => Some(id.to_string()),
        Some(pb::user_opt::User::ByName(named)) => Some(named.name.clone()),
        None => None,
    };
    let (owner, owner_group) = (text(&option.user), text(&option.group));
    let by_number =
        matches!(option.user.as_ref().and_then(|option| option.user.as_ref()), Some(pb::user_opt::User::ById(_)));
    let wanted = match (owner, owner_group) {
        (Some(user), Some(group)) => format!("{user}:{group}"),
        (Some(user), None) if by_number => format!("{user}:{user}"),
        (Some(user), None) => user,
        (None, Some(group)) => format!("0:{group}"),
        (None, None) => return Ok((0, 0)),
    };
    let found = user::resolve(&wanted, &[], &passwd, &group)?;
    Ok((found.uid, found.gid))
}
