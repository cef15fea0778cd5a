//! An interpreter of the classic BPF that seccomp programs are made of, after the kernel's checks (seccomp.c, filter.c).

/// What a filter is run on: `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// System call number.
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Arguments.
    pub args: [u64; 6],
}

impl Call {
    /// The 32-bit word at an offset.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            8 | 12 => Some(0),
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                Some(if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 })
            }
            _ => None,
        }
    }
}

/// Runs a program; the value of the `ret` it reaches. Panics on what the kernel would refuse.
pub fn run(program: &[u8], call: Call) -> u32 {
    let code: Vec<(u16, u8, u8, u32)> = program
        .chunks_exact(8)
        .map(|i| (u16::from_ne_bytes([i[0], i[1]]), i[2], i[3], u32::from_ne_bytes([i[4], i[5], i[6], i[7]])))
        .collect();
    assert!(program.len().is_multiple_of(8) && (1..=4096).contains(&code.len()), "{} bytes", program.len());
    let (mut at, mut a) = (0_usize, 0_u32);
    // Jumps go forward only, so this ends.
    loop {
        let (op, yes, no, k) = code[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { yes } else { no });
        match op {
            0x20 => a = call.word(k).unwrap_or_else(|| panic!("load of offset {k}")),
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x45 => at += jump(a & k != 0),
            0x06 => return k,
            _ => panic!("instruction {op:#x}"),
        }
    }
}
