//! systemd makes the cgroups.
