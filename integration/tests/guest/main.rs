//! Tests of `pier-runtime` that run inside a virtual machine of `hack/dev vm`: cgroup v2 alone (`plain`), and systemd as the
//! one that makes cgroups (`systemd`). Anywhere else each of them says that it was skipped.
mod bed;
mod plain;
mod systemd;
