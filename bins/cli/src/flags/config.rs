//! Flags, image and command as the engine's one message.

use std::path::Path;

use anyhow::{Context, bail};
use api::engine::v1::{ContainerConfig, Entrypoint, MountKind, Resources, VolumeMount};
use api::types::v1::Platform;
use oci::ulimit::Ulimit;

use super::container::{ContainerFlags, Limits, Storage};
use super::{device, environment, mount, network, policy, quantity, security};

/// `args` is the image, then the command. `cwd` makes relative host paths absolute, `lookup` reads this process's
/// environment.
pub fn config(
    flags: &ContainerFlags,
    args: &[String],
    cwd: &Path,
    lookup: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<ContainerConfig> {
    let (image, command) = args.split_first().context("an image is required")?;
    let process = &flags.process;
    if flags.rm && flags.restart != "no" {
        bail!("--rm conflicts with --restart");
    }
    if !flags.name.is_empty() && !oci::name::is_valid(&flags.name) {
        bail!("invalid container name {:?}: expected [a-zA-Z0-9][a-zA-Z0-9_.-]*", flags.name);
    }
    if !matches!(flags.image.pull.as_str(), "missing" | "always" | "never") {
        bail!("invalid --pull {:?}: expected missing, always or never", flags.image.pull);
    }
    Ok(ContainerConfig {
        name: flags.name.clone(),
        image: image.clone(),
        cmd: command.to_vec(),
        entrypoint: process.entrypoint.as_ref().map(|program| Entrypoint {
            args: Some(program.clone()).filter(|program| !program.is_empty()).into_iter().collect(),
        }),
        env: environment::variables(&process.env_file, &process.env, lookup)?,
        working_dir: process.workdir.clone(),
        user: process.user.clone(),
        additional_groups: process.group_add.clone(),
        hostname: process.hostname.clone(),
        domainname: process.domainname.clone(),
        labels: environment::labels(&process.label_file, &process.label)?,
        annotations: environment::labels(&[], &process.annotation)?,
        tty: flags.tty,
        open_stdin: flags.interactive,
        // A terminal stays open when its user detaches; a pipe ends with the client.
        stdin_once: flags.interactive && !flags.tty,
        stop_signal: process.stop_signal.clone(),
        stop_timeout_seconds: process.stop_timeout,
        restart: Some(policy::restart(&flags.restart)?),
        log: policy::log(flags.log_driver.as_deref(), &flags.log_opt)?,
        healthcheck: policy::health(&flags.health)?,
        auto_remove: flags.rm,
        runtime: process.runtime.clone(),
        init: process.init,
        mounts: mounts(&flags.storage, cwd)?,
        resources: Some(resources(&flags.limits)?),
        security: Some(security::config(&flags.privileges)?),
        network: Some(network::config(&flags.network)?),
        platform: flags.image.platform.as_deref().map(platform).transpose()?,
        pull: flags.image.pull.clone(),
        registry: None,
        pid_mode: process.pid.clone(),
        ipc_mode: process.ipc.clone(),
        uts_mode: process.uts.clone(),
        cgroupns_mode: process.cgroupns.clone(),
        read_only_rootfs: flags.storage.read_only,
        shm_size_bytes: flags.storage.shm_size.as_deref().map_or(Ok(0), quantity::bytes)?,
        sysctls: environment::pairs("--sysctl", &process.sysctl)?,
        ulimits: flags
            .limits
            .ulimit
            .iter()
            .map(|text| Ok(text.parse::<Ulimit>()?.to_string()))
            .collect::<anyhow::Result<_>>()?,
        devices: flags.storage.device.iter().map(|text| device::device(text)).collect::<anyhow::Result<_>>()?,
        cgroup_parent: flags.limits.cgroup_parent.clone(),
        volume_driver: flags.storage.volume_driver.clone(),
    })
}

fn mounts(flags: &Storage, cwd: &Path) -> anyhow::Result<Vec<VolumeMount>> {
    let mut all: Vec<VolumeMount> = Vec::new();
    let volume = |text: &String| -> anyhow::Result<VolumeMount> {
        let mut mount = mount::volume(text, cwd)?;
        if mount.kind() == MountKind::Volume {
            mount.driver.clone_from(&flags.volume_driver);
        }
        Ok(mount)
    };
    let parsed = flags.volume.iter().map(volume);
    let parsed = parsed.chain(flags.mount.iter().map(|text| mount::mount(text, cwd)));
    for mount in parsed.chain(flags.tmpfs.iter().map(|text| mount::tmpfs(text))) {
        let mount = mount?;
        if all.iter().any(|other| other.target.trim_end_matches('/') == mount.target.trim_end_matches('/')) {
            bail!("two mounts on {}", mount.target);
        }
        all.push(mount);
    }
    Ok(all)
}

fn resources(limits: &Limits) -> anyhow::Result<Resources> {
    if limits.cpus.is_some() && (limits.cpu_quota != 0 || limits.cpu_period != 0) {
        bail!("--cpus conflicts with --cpu-period and --cpu-quota");
    }
    let size = |text: &Option<String>| text.as_deref().map_or(Ok(0), quantity::bytes);
    let memory_bytes = size(&limits.memory)?;
    let memory_swap_bytes = limits.memory_swap.as_deref().map_or(Ok(0), quantity::bytes_or_unlimited)?;
    if memory_swap_bytes > 0 && memory_swap_bytes < memory_bytes {
        bail!("--memory-swap is memory and swap together: it cannot be less than --memory");
    }
    Ok(Resources {
        memory_bytes,
        memory_swap_bytes,
        memory_reservation_bytes: size(&limits.memory_reservation)?,
        nano_cpus: limits.cpus.as_deref().map_or(Ok(0), quantity::nano_cpus)?,
        cpu_shares: limits.cpu_shares,
        cpu_period_us: limits.cpu_period,
        cpu_quota_us: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        pids_limit: limits.pids_limit.max(0),
        oom_kill_disable: limits.oom_kill_disable,
        oom_score_adj: limits.oom_score_adj,
        blkio_weight: limits.blkio_weight,
    })
}

/// "linux/arm64/v8".
pub fn platform(text: &str) -> anyhow::Result<Platform> {
    let platform: oci::Platform = text.parse()?;
    Ok(Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Run {
        #[command(flatten)]
        flags: ContainerFlags,
        #[arg(required = true, trailing_var_arg = true)]
        args: Vec<String>,
    }

    fn ask(line: &str) -> anyhow::Result<ContainerConfig> {
        let run = Run::try_parse_from(std::iter::once("run").chain(line.split_whitespace()))?;
        config(&run.flags, &run.args, Path::new("/cwd"), |_| None)
    }

    #[test]
    fn whole_line() {
        let config =
            ask("-it --rm --name web -h box -v data:/data -p 8080:80 -m 64m --cpus 0.5 -e A=b --network blue \
                          --entrypoint /bin/sh alpine -c ls --rm -v x")
            .unwrap();
        assert_eq!((config.name.as_str(), config.hostname.as_str(), config.image.as_str()), ("web", "box", "alpine"));
        assert_eq!(config.cmd, ["-c", "ls", "--rm", "-v", "x"]);
        assert_eq!(config.entrypoint.unwrap().args, ["/bin/sh"]);
        assert!(config.tty && config.open_stdin && config.auto_remove);
        assert_eq!(config.mounts.len(), 1);
        let resources = config.resources.unwrap();
        assert_eq!((resources.memory_bytes, resources.nano_cpus), (64 << 20, 500_000_000));
        let network = config.network.unwrap();
        assert_eq!((network.ports[0].host_port, network.attachments[0].network.as_str()), (8080, "blue"));
    }

    #[test]
    fn entrypoint_may_be_emptied() {
        let config = ask("--entrypoint= alpine ls").unwrap();
        assert_eq!(config.entrypoint, Some(Entrypoint::default()));
        assert_eq!(ask("alpine").unwrap().entrypoint, None);
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "--rm --restart always alpine",
            "--name /x alpine",
            "--pull sometimes alpine",
            "-v a:/x -v b:/x/ alpine",
            "-m 64m --memory-swap 32m alpine",
            "--cpus 1 --cpu-quota 5 alpine",
            "--bogus alpine",
            "--platform / alpine",
        ] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }
}
