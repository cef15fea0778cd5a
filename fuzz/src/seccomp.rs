//! A section made of the input, compiled, and the program asked about calls: it must say what the section says.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use crate::bpf::{Call, run};

/// Calls that all three architectures of x86 have under one name, none of them multiplexed. Unknown ones are skipped.
const NAMES: [&str; 12] = [
    "read",
    "personality",
    "keyctl",
    "mkdir",
    "unshare",
    "clone3",
    "prctl",
    "ptrace",
    "syslog",
    "chroot",
    "no_such_call",
    "bpf",
];
const ACTIONS: [(&str, u32); 7] = [
    ("SCMP_ACT_ALLOW", 0x7fff_0000),
    ("SCMP_ACT_ERRNO", 0x0005_0000),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL", 0),
    ("SCMP_ACT_TRAP", 0x0003_0000),
    ("SCMP_ACT_TRACE", 0x7ff0_0000),
    ("SCMP_ACT_LOG", 0x7ffc_0000),
];
const OPS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ARCHS: [(&str, ScmpArch, u32); 3] = [
    ("SCMP_ARCH_X86_64", ScmpArch::X8664, 0xc000_003e),
    ("SCMP_ARCH_X86", ScmpArch::X86, 0x4000_0003),
    ("SCMP_ARCH_X32", ScmpArch::X32, 0xc000_003e),
];
const ENOSYS: u32 = 0x0005_0000 | 38;
const X32_BIT: u32 = 1 << 30;

/// Bytes as choices; zero when they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// Mostly small, sometimes at the edge of 32 bits, where 64-bit comparisons are made of two.
    fn value(&mut self) -> u64 {
        let n = u64::from(self.byte());
        match self.below(4) {
            0 | 1 => n,
            2 => n << 29,
            _ => u64::MAX - n,
        }
    }
}

struct Comparison {
    index: usize,
    op: usize,
    value: u64,
    two: u64,
}

impl Comparison {
    fn holds(&self, args: &[u64; 6]) -> bool {
        let arg = args[self.index];
        match OPS[self.op] {
            "NE" => arg != self.value,
            "LT" => arg < self.value,
            "LE" => arg <= self.value,
            "EQ" => arg == self.value,
            "GE" => arg >= self.value,
            "GT" => arg > self.value,
            _ => arg & self.value == self.two & self.value,
        }
    }
}

/// One action per name, as alternatives of comparisons that must all hold: what happens to contradictory rules is
/// libseccomp's business.
struct Rule {
    name: &'static str,
    action: usize,
    errno: Option<u16>,
    alternatives: Vec<Vec<Comparison>>,
}

struct Policy {
    default: usize,
    default_errno: Option<u16>,
    archs: Vec<usize>,
    rules: Vec<Rule>,
}

fn returned(action: usize, errno: Option<u16>) -> u32 {
    let (name, base) = ACTIONS[action];
    let data = matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
    if data { base | u32::from(errno.unwrap_or(1)) } else { base }
}

impl Policy {
    fn of(input: &mut Input<'_>) -> Self {
        let errno = |input: &mut Input<'_>| (input.below(3) == 0).then(|| u16::from(input.byte()));
        let (default, default_errno) = (input.below(ACTIONS.len()), errno(input));
        let mask = input.below(8);
        let archs = (0..3).filter(|n| mask & 1 << n != 0).collect();
        let mut rules = vec![];
        for name in NAMES {
            if input.below(2) == 0 {
                continue;
            }
            let alternatives = alternatives(input);
            rules.push(Rule { name, action: input.below(ACTIONS.len()), errno: errno(input), alternatives });
        }
        Self { default, default_errno, archs, rules }
    }

    fn json(&self) -> Value {
        let mut syscalls = vec![];
        for rule in &self.rules {
            let mut one = json!({"names": [rule.name], "action": ACTIONS[rule.action].0});
            if let Some(errno) = rule.errno {
                one["errnoRet"] = json!(errno);
            }
            if rule.alternatives.is_empty() {
                syscalls.push(one);
                continue;
            }
            for all in &rule.alternatives {
                let args = all.iter().map(|c| {
                    json!({"index": c.index, "op": format!("SCMP_CMP_{}", OPS[c.op]), "value": c.value, "valueTwo": c.two})
                });
                one["args"] = args.collect();
                syscalls.push(one.clone());
            }
        }
        let archs: Vec<&str> = self.archs.iter().map(|n| ARCHS[*n].0).collect();
        let mut section =
            json!({"defaultAction": ACTIONS[self.default].0, "architectures": archs, "syscalls": syscalls});
        if let Some(errno) = self.default_errno {
            section["defaultErrnoRet"] = json!(errno);
        }
        section
    }

    /// What the section says about a call on one of its architectures.
    fn says(&self, arch: usize, call: Call) -> u32 {
        let number = |name: &str| ScmpSyscall::from_name_by_arch(name, ARCHS[arch].1).ok().map(i32::from);
        let default = returned(self.default, self.default_errno);
        let highest = self.rules.iter().filter_map(|r| number(r.name)).max().filter(|n| *n > 0);
        let strict = !matches!(ACTIONS[self.default].0, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE");
        if strict && highest.is_some_and(|n| call.number > n.cast_unsigned()) {
            return ENOSYS;
        }
        let rule = self.rules.iter().find(|r| number(r.name) == Some(call.number.cast_signed()));
        let Some(rule) = rule else { return default };
        let holds = |all: &Vec<Comparison>| all.iter().all(|c| c.holds(&call.args));
        let matches = rule.alternatives.is_empty() || rule.alternatives.iter().any(holds);
        if matches { returned(rule.action, rule.errno) } else { default }
    }
}

/// None, one of several comparisons, or several values of one argument, as profiles have them. Nothing else: libseccomp 2.5.4
/// merges other alternatives wrongly, e.g. `a0 < 201`, or `a0 <= 59592671232 and a2 & 211 == 3`, to what never matches `a0 = 202`,
/// `a2 = 3`. runc's filters are wrong in the same way then.
fn alternatives(input: &mut Input<'_>) -> Vec<Vec<Comparison>> {
    let index = input.below(6);
    match input.below(4) {
        0 => vec![],
        1 => vec![comparisons(input)],
        n => (0..n).map(|_| vec![Comparison { index, op: 3, value: input.value(), two: 0 }]).collect(),
    }
}

/// Comparisons of different arguments.
fn comparisons(input: &mut Input<'_>) -> Vec<Comparison> {
    let mut all: Vec<Comparison> = vec![];
    for _ in 0..=input.below(2) {
        let one =
            Comparison { index: input.below(6), op: input.below(OPS.len()), value: input.value(), two: input.value() };
        // libseccomp takes a masked comparison whose value has bits outside the mask as one that never holds.
        let two = one.two & one.value;
        if all.iter().all(|c| c.index != one.index) {
            all.push(Comparison { two, ..one });
        }
    }
    all
}

/// See the module.
pub fn target(data: &[u8]) {
    let mut input = Input(data);
    let policy = Policy::of(&mut input);
    let json = policy.json();
    let section: LinuxSeccomp = serde_json::from_value(json.clone()).expect("a good section");
    let Ok(program) = runtime::seccomp::compile(&section) else { return };
    // The native one is always there. Comparisons of 32-bit arguments have a meaning of their own: only the native one has them.
    let compares = policy.rules.iter().any(|r| !r.alternatives.is_empty());
    for (arch, (shown, token, audit)) in ARCHS.into_iter().enumerate() {
        if arch != 0 && (compares || !policy.archs.contains(&arch)) {
            continue;
        }
        for name in NAMES {
            let Ok(number) = ScmpSyscall::from_name_by_arch(name, token) else { continue };
            let args = std::array::from_fn(|_| input.value());
            for number in
                [i32::from(number), i32::from(number) + 1, 5000 | if arch == 2 { X32_BIT.cast_signed() } else { 0 }]
            {
                if number < 0 {
                    continue;
                }
                let call = Call { number: number.cast_unsigned(), arch: audit, args };
                let (is, should) = (run(&program, call), policy.says(arch, call));
                assert_eq!(is, should, "{call:x?} on {}: {is:#x} instead of {should:#x} under {json}", shown);
            }
        }
    }
}
