//! A Cortex-M0 that executes Thumb code (ARMv6-M, ARM DDI 0419, chapter A5), interrupts left out: the board's firmware
//! masks them. Total: what is undefined is an error, whatever the code is.

use super::map::Map;

/// What comes of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executed {
    /// The next one follows.
    On,
    /// It is WFI.
    Sleep,
    /// It is a BKPT, which a debugger put there; it is not passed.
    Breakpoint,
}

/// What no core survives: code or data where there is none, or an instruction that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardFault {
    /// The instruction's address.
    pub at: u32,
}

/// Registers and flags.
#[derive(Debug, Default, Clone)]
pub struct Core {
    /// `r[15]` is the address of the next instruction.
    pub r: [u32; 16],
    negative: bool,
    zero: bool,
    carry: bool,
    overflow: bool,
    thumb: bool,
}

const SP: usize = 13;
const LR: usize = 14;
const PC: usize = 15;

/// Bits `count` at `from`, as a register's number.
fn field(code: u32, from: u32, count: u32) -> usize {
    (code >> from & ((1 << count) - 1)) as usize
}

fn signed(value: u32, bits: u32) -> u32 {
    (value << (32 - bits)).cast_signed().wrapping_shr(32 - bits).cast_unsigned()
}

impl Core {
    /// As after a reset through the vectors in flash.
    pub fn reset(map: &mut Map) -> Self {
        let mut core = Self { thumb: true, ..Self::default() };
        core.r[SP] = map.read(0, 4).unwrap_or(!0) & !3;
        core.r[LR] = !0;
        core.r[PC] = map.read(4, 4).unwrap_or(!0) & !1;
        core
    }

    /// The program status register.
    pub fn status(&self) -> u32 {
        [(31, self.negative), (30, self.zero), (29, self.carry), (28, self.overflow), (24, self.thumb)]
            .into_iter()
            .fold(0, |status, (bit, set)| status | u32::from(set) << bit)
    }

    /// Writes it.
    pub fn set_status(&mut self, status: u32) {
        let bit = |bit: u32| status >> bit & 1 == 1;
        (self.negative, self.zero, self.carry, self.overflow, self.thumb) =
            (bit(31), bit(30), bit(29), bit(28), bit(24));
    }

    /// Executes the next instruction.
    pub fn execute(&mut self, map: &mut Map) -> Result<Executed, HardFault> {
        let at = self.r[PC];
        self.one(map, at).ok_or(HardFault { at })
    }

    fn one(&mut self, map: &mut Map, at: u32) -> Option<Executed> {
        if !self.thumb {
            return None;
        }
        let code = map.read(at, 2)?;
        self.r[PC] = at.wrapping_add(2);
        // What an instruction reads as the program counter.
        let here = at.wrapping_add(4);
        match code >> 12 {
            0x0 | 0x1 => self.shift_or_add(code),
            0x2 | 0x3 => self.with_immediate(code),
            0x4 => match field(code, 10, 2) {
                0 => self.data_processing(code),
                1 => self.with_high_register(code, here)?,
                _ => self.r[field(code, 8, 3)] = map.read((here & !3) + (code & 0xff) * 4, 4)?,
            },
            0x5 => self.load_or_store_indexed(map, code)?,
            0x6 => self.load_or_store(map, code, 4)?,
            0x7 => self.load_or_store(map, code, 1)?,
            0x8 => self.load_or_store(map, code, 2)?,
            0x9 => {
                let (address, register) = (self.r[SP].wrapping_add((code & 0xff) * 4), field(code, 8, 3));
                self.transfer(map, code >> 11 & 1 == 1, address, 4, register)?;
            }
            0xA => {
                let base = if code >> 11 & 1 == 1 { self.r[SP] } else { here & !3 };
                self.r[field(code, 8, 3)] = base.wrapping_add((code & 0xff) * 4);
            }
            0xB => return self.miscellaneous(map, code, at),
            0xC => self.load_or_store_many(map, code)?,
            0xD => {
                if self.holds(code >> 8 & 0xf)? {
                    self.r[PC] = here.wrapping_add(signed(code & 0xff, 8) << 1);
                }
            }
            0xE if code >> 11 == 0b11100 => {
                self.r[PC] = here.wrapping_add(signed(code & 0x7ff, 11) << 1);
            }
            0xF => self.long(map, code, at)?,
            _ => return None,
        }
        Some(Executed::On)
    }

    fn result(&mut self, register: usize, value: u32) {
        self.r[register] = value;
        self.judge(value);
    }

    fn judge(&mut self, value: u32) {
        (self.negative, self.zero) = (value >> 31 == 1, value == 0);
    }

    /// Adds and sets all flags; a subtraction adds the complement with the carry set.
    fn sum(&mut self, a: u32, b: u32, carry: bool) -> u32 {
        let wide = u64::from(a) + u64::from(b) + u64::from(carry);
        let sum = wide as u32;
        self.carry = wide >> 32 == 1;
        self.overflow = (!(a ^ b) & (a ^ sum)) >> 31 == 1;
        self.judge(sum);
        sum
    }

    /// Left (0), right (1), right with the sign (2), round (3). By nothing, the carry stays.
    fn shifted(&mut self, kind: usize, value: u32, by: u32) -> u32 {
        if by == 0 {
            return value;
        }
        let wide = u64::from(value);
        let far = by.min(33);
        let (shifted, carry) = match kind {
            0 => ((wide << far) as u32, wide << far >> 32 & 1),
            1 => ((wide >> far) as u32, wide >> (far - 1) & 1),
            2 => {
                let wide = i64::from(value.cast_signed());
                ((wide >> far).cast_unsigned() as u32, (wide >> (far - 1)).cast_unsigned() & 1)
            }
            _ => {
                let round = value.rotate_right(by % 32);
                (round, u64::from(round >> 31))
            }
        };
        self.carry = carry == 1;
        shifted
    }

    fn shift_or_add(&mut self, code: u32) {
        let (to, from, kind) = (field(code, 0, 3), self.r[field(code, 3, 3)], field(code, 11, 2));
        let value = if kind == 3 {
            let number = field(code, 6, 3);
            let other = if code >> 10 & 1 == 1 { number as u32 } else { self.r[number] };
            let subtracts = code >> 9 & 1 == 1;
            self.sum(from, if subtracts { !other } else { other }, subtracts)
        } else {
            let by = code >> 6 & 0x1f;
            // No shift to the right by nothing: that is by 32.
            self.shifted(kind, from, if by == 0 && kind != 0 { 32 } else { by })
        };
        self.result(to, value);
    }

    fn with_immediate(&mut self, code: u32) {
        let (register, value) = (field(code, 8, 3), code & 0xff);
        match field(code, 11, 2) {
            0 => self.result(register, value),
            1 => {
                self.sum(self.r[register], !value, true);
            }
            2 => self.r[register] = self.sum(self.r[register], value, false),
            _ => self.r[register] = self.sum(self.r[register], !value, true),
        }
    }

    fn data_processing(&mut self, code: u32) {
        let to = field(code, 0, 3);
        let (a, b) = (self.r[to], self.r[field(code, 3, 3)]);
        let value = match field(code, 6, 4) {
            0x0 => a & b,
            0x1 => a ^ b,
            0x2 => self.shifted(0, a, b & 0xff),
            0x3 => self.shifted(1, a, b & 0xff),
            0x4 => self.shifted(2, a, b & 0xff),
            0x5 => self.sum(a, b, self.carry),
            0x6 => self.sum(a, !b, self.carry),
            0x7 => self.shifted(3, a, b & 0xff),
            0x8 => return self.judge(a & b),
            0x9 => self.sum(0, !b, true),
            0xA => {
                self.sum(a, !b, true);
                return;
            }
            0xB => {
                self.sum(a, b, false);
                return;
            }
            0xC => a | b,
            0xD => a.wrapping_mul(b),
            0xE => a & !b,
            _ => !b,
        };
        self.result(to, value);
    }

    fn with_high_register(&mut self, code: u32, here: u32) -> Option<()> {
        let to = field(code, 0, 3) | field(code, 7, 1) << 3;
        let from = field(code, 3, 4);
        let read = |core: &Self, register| if register == PC { here } else { core.r[register] };
        let value = read(self, from);
        match field(code, 8, 2) {
            0 => self.write_high(to, read(self, to).wrapping_add(value)),
            1 => {
                self.sum(read(self, to), !value, true);
            }
            2 => self.write_high(to, value),
            _ => {
                if code >> 7 & 1 == 1 {
                    self.r[LR] = here.wrapping_sub(2) | 1;
                }
                self.branch_to(value)?;
            }
        }
        Some(())
    }

    fn write_high(&mut self, register: usize, value: u32) {
        self.r[register] = match register {
            PC => value & !1,
            SP => value & !3,
            _ => value,
        };
    }

    /// The lowest bit says that Thumb code is there; there is no other.
    fn branch_to(&mut self, address: u32) -> Option<()> {
        self.thumb = address & 1 == 1;
        self.r[PC] = address & !1;
        self.thumb.then_some(())
    }

    fn transfer(
        &mut self,
        map: &mut Map,
        loads: bool,
        address: u32,
        size: u32,
        register: usize,
    ) -> Option<()> {
        if loads {
            self.r[register] = map.read(address, size)?;
            Some(())
        } else {
            map.write(address, size, self.r[register])
        }
    }

    fn load_or_store_indexed(&mut self, map: &mut Map, code: u32) -> Option<()> {
        let address = self.r[field(code, 3, 3)].wrapping_add(self.r[field(code, 6, 3)]);
        let register = field(code, 0, 3);
        match field(code, 9, 3) {
            0 => self.transfer(map, false, address, 4, register),
            1 => self.transfer(map, false, address, 2, register),
            2 => self.transfer(map, false, address, 1, register),
            3 => map.read(address, 1).map(|byte| self.r[register] = signed(byte, 8)),
            4 => self.transfer(map, true, address, 4, register),
            5 => self.transfer(map, true, address, 2, register),
            6 => self.transfer(map, true, address, 1, register),
            _ => map.read(address, 2).map(|half| self.r[register] = signed(half, 16)),
        }
    }

    fn load_or_store(&mut self, map: &mut Map, code: u32, size: u32) -> Option<()> {
        let address = self.r[field(code, 3, 3)].wrapping_add((code >> 6 & 0x1f) * size);
        self.transfer(map, code >> 11 & 1 == 1, address, size, field(code, 0, 3))
    }

    fn load_or_store_many(&mut self, map: &mut Map, code: u32) -> Option<()> {
        let (base, loads) = (field(code, 8, 3), code >> 11 & 1 == 1);
        let mut address = self.r[base];
        for register in (0..8).filter(|register| code >> register & 1 == 1) {
            self.transfer(map, loads, address, 4, register)?;
            address = address.wrapping_add(4);
        }
        if !loads || code >> base & 1 == 0 {
            self.r[base] = address;
        }
        Some(())
    }

    fn miscellaneous(&mut self, map: &mut Map, code: u32, at: u32) -> Option<Executed> {
        let (to, from) = (field(code, 0, 3), self.r[field(code, 3, 3)]);
        match code >> 8 & 0xf {
            0x0 => {
                let by = (code & 0x7f) * 4;
                let by = if code >> 7 & 1 == 1 { by.wrapping_neg() } else { by };
                self.r[SP] = self.r[SP].wrapping_add(by);
            }
            0x2 => {
                self.r[to] = match field(code, 6, 2) {
                    0 => signed(from & 0xffff, 16),
                    1 => signed(from & 0xff, 8),
                    2 => from & 0xffff,
                    _ => from & 0xff,
                }
            }
            0x4 | 0x5 => self.push(map, code)?,
            0x6 => {} // CPS
            0xA => {
                self.r[to] = match field(code, 6, 2) {
                    0 => from.swap_bytes(),
                    1 => from.swap_bytes().rotate_left(16),
                    3 => signed(from.swap_bytes() >> 16, 16),
                    _ => return None,
                }
            }
            0xC | 0xD => self.pop(map, code)?,
            0xE => {
                self.r[PC] = at;
                return Some(Executed::Breakpoint);
            }
            0xF if code & 0xff == 0x30 => return Some(Executed::Sleep),
            0xF if code & 0xf == 0 => {} // NOP and its like
            _ => return None,
        }
        Some(Executed::On)
    }

    fn push(&mut self, map: &mut Map, code: u32) -> Option<()> {
        let registers = (0..8).filter(|register| code >> register & 1 == 1);
        let registers: Vec<usize> = registers.chain((code >> 8 & 1 == 1).then_some(LR)).collect();
        let bottom = self.r[SP].wrapping_sub(4 * registers.len() as u32);
        for (register, address) in registers.into_iter().zip((bottom..).step_by(4)) {
            self.transfer(map, false, address, 4, register)?;
        }
        self.r[SP] = bottom;
        Some(())
    }

    fn pop(&mut self, map: &mut Map, code: u32) -> Option<()> {
        let mut address = self.r[SP];
        for register in (0..8).filter(|register| code >> register & 1 == 1) {
            self.transfer(map, true, address, 4, register)?;
            address = address.wrapping_add(4);
        }
        if code >> 8 & 1 == 1 {
            let target = map.read(address, 4)?;
            address = address.wrapping_add(4);
            self.branch_to(target)?;
        }
        self.r[SP] = address;
        Some(())
    }

    fn holds(&self, condition: u32) -> Option<bool> {
        let holds = match condition >> 1 {
            0 => self.zero,
            1 => self.carry,
            2 => self.negative,
            3 => self.overflow,
            4 => self.carry && !self.zero,
            5 => self.negative == self.overflow,
            6 => self.negative == self.overflow && !self.zero,
            _ => return None, // UDF and SVC
        };
        Some(holds != (condition & 1 == 1))
    }

    /// Of two halves: BL, barriers, and the special registers, of which there is none but the flags.
    fn long(&mut self, map: &mut Map, first: u32, at: u32) -> Option<()> {
        let second = map.read(at.wrapping_add(2), 2)?;
        let next = at.wrapping_add(4);
        self.r[PC] = next;
        if first >> 11 == 0b11110 && second & 0xD000 == 0xD000 {
            let sign = first >> 10 & 1;
            let upper = |bit: u32| !(second >> bit ^ sign) & 1;
            let offset = sign << 24
                | upper(13) << 23
                | upper(11) << 22
                | (first & 0x3ff) << 12
                | (second & 0x7ff) << 1;
            self.r[LR] = next | 1;
            self.r[PC] = next.wrapping_add(signed(offset, 25));
            return Some(());
        }
        match (first, second >> 12) {
            (0xF3BF | 0xF380..=0xF38F, 8) => Some(()),
            (0xF3EF, 8) => {
                self.r[field(second, 8, 4)] = 0;
                Some(())
            }
            _ => None,
        }
    }
}
