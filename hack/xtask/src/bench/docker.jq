# A seccomp profile in docker's format (with includes and excludes) -> the config.json that docker makes by default on x86_64.
def caps: ["CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FSETID","CAP_FOWNER","CAP_MKNOD","CAP_NET_RAW","CAP_SETGID","CAP_SETUID","CAP_SETFCAP","CAP_SETPCAP","CAP_NET_BIND_SERVICE","CAP_SYS_CHROOT","CAP_KILL","CAP_AUDIT_WRITE"];
def pick: [.syscalls[] | select(((.includes.caps//[])-caps|length)==0 and (((.includes.arches//["amd64"])|index("amd64"))!=null) and (((.excludes.caps//[])|any(. as $c|caps|index($c)))|not) and (((.excludes.arches//[])|index("amd64"))==null))
  | {names,action} + (if (.args//[])|length>0 then {args:.args} else {} end) + (if .errnoRet then {errnoRet} else {} end)];
{ociVersion:"1.0.2",
 process:{user:{uid:0,gid:0,additionalGids:[0,10]},args:["/bin/true"],env:["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","HOSTNAME=4e8c62d1a2b3"],cwd:"/",
  capabilities:{bounding:caps,effective:caps,permitted:caps},oomScoreAdj:0},
 root:{path:"rootfs"},hostname:"4e8c62d1a2b3",
 mounts:[{destination:"/proc",type:"proc",source:"proc",options:["nosuid","noexec","nodev"]},
 {destination:"/dev",type:"tmpfs",source:"tmpfs",options:["nosuid","strictatime","mode=755","size=65536k"]},
 {destination:"/dev/pts",type:"devpts",source:"devpts",options:["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
 {destination:"/sys",type:"sysfs",source:"sysfs",options:["nosuid","noexec","nodev","ro"]},
 {destination:"/sys/fs/cgroup",type:"cgroup",source:"cgroup",options:["ro","nosuid","noexec","nodev"]},
 {destination:"/dev/mqueue",type:"mqueue",source:"mqueue",options:["nosuid","noexec","nodev"]},
 {destination:"/dev/shm",type:"tmpfs",source:"shm",options:["nosuid","noexec","nodev","mode=1777","size=67108864"]},
 {destination:"/etc/resolv.conf",type:"bind",source:"/etc/resolv.conf",options:["rbind","rprivate"]},
 {destination:"/etc/hostname",type:"bind",source:"/etc/hostname",options:["rbind","rprivate"]},
 {destination:"/etc/hosts",type:"bind",source:"/etc/hosts",options:["rbind","rprivate"]}],
 linux:{resources:{devices:[{allow:false,access:"rwm"},{allow:true,type:"c",major:1,minor:5,access:"rwm"},{allow:true,type:"c",major:1,minor:3,access:"rwm"},{allow:true,type:"c",major:1,minor:9,access:"rwm"},{allow:true,type:"c",major:1,minor:8,access:"rwm"},{allow:true,type:"c",major:5,minor:0,access:"rwm"},{allow:true,type:"c",major:5,minor:1,access:"rwm"},{allow:false,type:"c",major:10,minor:229,access:"rwm"}],
  memory:{limit:268435456,swap:536870912,disableOOMKiller:false},cpu:{shares:0,quota:100000,period:100000},pids:{limit:100},blockIO:{weight:0}},
 namespaces:[{type:"mount"},{type:"network"},{type:"uts"},{type:"pid"},{type:"ipc"}],
 seccomp:{defaultAction:.defaultAction,defaultErrnoRet:.defaultErrnoRet,architectures:["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],syscalls:pick},
 maskedPaths:["/proc/asound","/proc/acpi","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/timer_list","/proc/timer_stats","/proc/sched_debug","/proc/scsi","/sys/firmware"],
 readonlyPaths:["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}}
| if .linux.seccomp.defaultErrnoRet==null then del(.linux.seccomp.defaultErrnoRet) else . end
