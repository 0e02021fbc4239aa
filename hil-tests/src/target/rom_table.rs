//! The CoreSight ROM tables and identification registers of an nRF51 with a Cortex-M0
//! (ARM DDI 0432, chapter 7; ARM IHI 0031, chapter C1). All constant.

const ARM: Designer = Designer { continuation: 4, identity: 0x3b };
const NORDIC: Designer = Designer { continuation: 2, identity: 0x44 };
const ROM_TABLE: u32 = 0x1;
const GENERIC_IP: u32 = 0xe;

/// A JEDEC JEP106 code.
struct Designer {
    continuation: u32,
    identity: u32,
}

/// What the word at `address` reads, when it is one of these.
pub fn read(address: u32) -> Option<u32> {
    Some(match address {
        0xF000_0000 => 0xF00F_F003, // the chip's table points to the core's
        0xF000_0FD0..=0xF000_0FFF => identification(address, 0x001, &NORDIC, ROM_TABLE),
        0xE00F_F000 => 0xFFF0_F003, // system control space
        0xE00F_F004 => 0xFFF0_2003, // watchpoint unit
        0xE00F_F008 => 0xFFF0_3003, // breakpoint unit
        0xE00F_FFD0..=0xE00F_FFFF => identification(address, 0x471, &ARM, ROM_TABLE),
        0xE000_EFD0..=0xE000_EFFF => identification(address, 0x008, &ARM, GENERIC_IP),
        0xE000_1FD0..=0xE000_1FFF => identification(address, 0x00a, &ARM, GENERIC_IP),
        0xE000_2FD0..=0xE000_2FFF => identification(address, 0x00b, &ARM, GENERIC_IP),
        0xF000_0004..=0xF000_0FCF | 0xE00F_F00C..=0xE00F_FFCF => 0,
        _ => return None,
    })
}

fn identification(address: u32, part: u32, designer: &Designer, class: u32) -> u32 {
    match address & 0xfff {
        0xfd0 => designer.continuation,
        0xfe0 => part & 0xff,
        0xfe4 => part >> 8 & 0xf | (designer.identity & 0xf) << 4,
        0xfe8 => 8 | designer.identity >> 4 & 7,
        0xff0 => 0x0d,
        0xff4 => class << 4,
        0xff8 => 0x05,
        0xffc => 0xb1,
        _ => 0,
    }
}
