//! The flags of `run` and `create`, as docker spells them.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// Everything that describes a container but its image and command.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_excessive_bools)]
pub struct ContainerFlags {
    /// Name of the container
    #[arg(long, default_value = "")]
    pub name: String,
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container when it has exited
    #[arg(long)]
    pub rm: bool,
    #[command(flatten)]
    pub process: Process,
    #[command(flatten)]
    pub storage: Storage,
    #[command(flatten)]
    pub network: Network,
    #[command(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    pub privileges: Privileges,
    #[command(flatten)]
    pub health: Health,
    #[command(flatten)]
    pub image: ImageChoice,
    /// What to do when it exits: no, always, unless-stopped, on-failure[:MAX]
    #[arg(long, default_value = "no", value_name = "POLICY", help_heading = "Lifecycle")]
    pub restart: String,
    /// Logging driver: json-file or none
    #[arg(long, value_name = "DRIVER", help_heading = "Lifecycle")]
    pub log_driver: Option<String>,
    /// Option of the logging driver: max-size=10m, max-file=5
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Lifecycle")]
    pub log_opt: Vec<String>,
    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
}

/// Which image.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Image")]
pub struct ImageChoice {
    /// When to ask the registry: missing, always, never
    #[arg(long, default_value = "missing", value_name = "POLICY")]
    pub pull: String,
    /// Platform of the image, os/architecture[/variant]
    #[arg(long)]
    pub platform: Option<String>,
    /// Show no progress of the pull
    #[arg(short, long)]
    pub quiet: bool,
}

/// What runs, as whom, with what around it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Process")]
pub struct Process {
    /// Environment variable, NAME=VALUE or NAME
    #[arg(short, long, value_name = "VAR")]
    pub env: Vec<String>,
    /// File of environment variables
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, default_value = "", value_name = "DIR")]
    pub workdir: String,
    /// User: NAME|UID[:GROUP|GID]
    #[arg(short, long, default_value = "")]
    pub user: String,
    /// One more group
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Host name
    #[arg(short = 'h', long, default_value = "", value_name = "NAME")]
    pub hostname: String,
    /// Domain name
    #[arg(long, default_value = "", value_name = "NAME")]
    pub domainname: String,
    /// Label, KEY=VALUE
    #[arg(short, long)]
    pub label: Vec<String>,
    /// File of labels
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// Annotation for the OCI runtime, KEY=VALUE
    #[arg(long)]
    pub annotation: Vec<String>,
    /// Program to start instead of the image's; "" for none
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Run an init as pid 1
    #[arg(long)]
    pub init: bool,
    /// OCI runtime: a name on PATH or a path
    #[arg(long, default_value = "")]
    pub runtime: String,
    /// Signal for stop
    #[arg(long, default_value = "", value_name = "SIGNAL")]
    pub stop_signal: String,
    /// Seconds to wait for stop before SIGKILL
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u32>,
    /// Process namespace: host or container:ID
    #[arg(long, default_value = "", value_name = "MODE")]
    pub pid: String,
    /// IPC namespace: host, private or container:ID
    #[arg(long, default_value = "", value_name = "MODE")]
    pub ipc: String,
    /// UTS namespace: host
    #[arg(long, default_value = "", value_name = "MODE")]
    pub uts: String,
    /// Cgroup namespace: host or private
    #[arg(long, default_value = "", value_name = "MODE")]
    pub cgroupns: String,
    /// Kernel parameter of the container's namespaces, KEY=VALUE
    #[arg(long)]
    pub sysctl: Vec<String>,
}

/// What the container sees of storage.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Storage")]
pub struct Storage {
    /// Volume or host path: [SOURCE:]TARGET[:OPTIONS]
    #[arg(short, long)]
    pub volume: Vec<String>,
    /// The same in fields: type=bind|volume|tmpfs,source=,target=,readonly,...
    #[arg(long)]
    pub mount: Vec<String>,
    /// Memory file system: TARGET[:OPTIONS]
    #[arg(long)]
    pub tmpfs: Vec<String>,
    /// Mounts of another container, [:ro]
    #[arg(long, value_name = "CONTAINER")]
    pub volumes_from: Vec<String>,
    /// Driver of the volumes of -v and of the image that have to be made
    #[arg(long, default_value = "", value_name = "DRIVER")]
    pub volume_driver: String,
    /// Read-only root file system
    #[arg(long)]
    pub read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// Host device: HOST[:CONTAINER][:rwm]
    #[arg(long)]
    pub device: Vec<String>,
}

/// How the container is wired.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Network: a name, none, host, container:ID; several times for several networks
    #[arg(long, visible_alias = "net")]
    pub network: Vec<String>,
    /// Another name on the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// IPv4 address on the network
    #[arg(long)]
    pub ip: Option<String>,
    /// IPv6 address on the network
    #[arg(long)]
    pub ip6: Option<String>,
    /// MAC address
    #[arg(long, value_name = "MAC")]
    pub mac_address: Option<String>,
    /// Publish a port: [[IP:]HOST_PORT:]CONTAINER_PORT[/PROTOCOL]
    #[arg(short, long)]
    pub publish: Vec<String>,
    /// Publish all exposed ports on free host ports
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Expose a port or a range
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<String>,
    /// Line of /etc/hosts, HOST:IP; host-gateway is the host
    #[arg(long, value_name = "HOST:IP")]
    pub add_host: Vec<String>,
    /// DNS server
    #[arg(long, value_name = "IP")]
    pub dns: Vec<String>,
    /// DNS search domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// DNS option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
}

/// What the container may use up.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Memory
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Memory and swap together; -1: unlimited
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Memory kept when the host is short of it
    #[arg(long, value_name = "SIZE")]
    pub memory_reservation: Option<String>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Relative weight of CPU time
    #[arg(short, long, default_value_t, value_name = "WEIGHT")]
    pub cpu_shares: u64,
    /// Period of the CPU quota, microseconds
    #[arg(long, default_value_t, value_name = "MICROSECONDS")]
    pub cpu_period: u64,
    /// CPU time in each period, microseconds
    #[arg(long, default_value_t, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: i64,
    /// CPUs to run on: 0-3,5
    #[arg(long, default_value = "", value_name = "CPUS")]
    pub cpuset_cpus: String,
    /// Memory nodes to use
    #[arg(long, default_value = "", value_name = "NODES")]
    pub cpuset_mems: String,
    /// Number of processes; -1: unlimited
    #[arg(long, default_value_t, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: i64,
    /// Limit of each process: NAME=SOFT[:HARD]
    #[arg(long)]
    pub ulimit: Vec<String>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, default_value_t, value_name = "WEIGHT")]
    pub blkio_weight: u32,
    /// Never kill for lack of memory
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// Preference for being killed when the host lacks memory, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    /// Parent cgroup
    #[arg(long, default_value = "", value_name = "PATH")]
    pub cgroup_parent: String,
}

/// What the container may do.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Security")]
pub struct Privileges {
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// All capabilities and devices
    #[arg(long)]
    pub privileged: bool,
    /// no-new-privileges, seccomp=PROFILE|unconfined, apparmor=PROFILE
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// User namespace: host, auto, auto:size=N, keep-id (you are who you are outside), keep-id:uid=U,gid=G
    #[arg(long, value_name = "MODE", conflicts_with = "uidmap")]
    pub userns: Option<String>,
    /// User ids of its own: CONTAINER:HOST:SIZE
    #[arg(long, value_name = "MAPPING")]
    pub uidmap: Vec<String>,
    /// Group ids [default: as --uidmap]
    #[arg(long, value_name = "MAPPING", requires = "uidmap")]
    pub gidmap: Vec<String>,
}

/// How its health is found out.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Health")]
pub struct Health {
    /// Command that tells
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Between two checks
    #[arg(long, value_name = "DURATION")]
    pub health_interval: Option<String>,
    /// Of one check
    #[arg(long, value_name = "DURATION")]
    pub health_timeout: Option<String>,
    /// Failures before this do not count
    #[arg(long, value_name = "DURATION")]
    pub health_start_period: Option<String>,
    /// Failures in a row until unhealthy
    #[arg(long, value_name = "NUMBER")]
    pub health_retries: Option<u32>,
    /// Not the image's check either
    #[arg(long)]
    pub no_healthcheck: bool,
}
