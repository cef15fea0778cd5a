//! Tests that run inside a virtual machine of `hack/dev vm`: `pier-runtime` where there is cgroup v2 alone (`plain`), or systemd
//! that makes the cgroups (`systemd`); `pier-volume` on file systems with quotas and of networks, `pier-network` on links that few kernels have (`storage`). Anywhere else
//! each of them says that it was skipped.
mod bed;
mod ipvlan;
mod network;
mod overlay;
mod plain;
mod sctp;
mod storage;
mod systemd;
mod vrf;
