//! The virtual board against the real, unmodified probe-rs, in a `sim-target` process of its own.

#[path = "target/bench.rs"]
mod bench;

use std::{
    fs,
    time::{Duration, Instant},
};

use bench::{Bench, attach, attach_as, erased_but_for, firmware_image, flash_firmware};
use factory_hil_tests::target::{Board, DeviceEnd, FIRMWARE_HEX, Faults, Pace, StuckLow};
use probe_rs::{
    MemoryInterface,
    config::Registry,
    flashing::{FlashProgress, ProgressEvent},
};

const ECHO: &str = "#!/bin/sh\nexec cat\n";

#[test]
fn a_board_is_flashed_boots_tests_itself_and_hands_its_line_to_the_device_program() {
    check(None);
}

#[test]
fn a_light_board_does_the_same_and_takes_its_time() {
    let ms = Duration::from_millis;
    let pace = Pace { erase: ms(20), write: Duration::from_micros(20), boot: ms(300), self_test: ms(200) };
    let begun = Instant::now();
    let work = check(Some(pace));
    assert!(pace.self_test <= work && work < begun.elapsed() - pace.boot, "{work:?}");
}

/// Gives how long the nest was at work from its self-test on.
fn check(pace: Option<Pace>) -> Duration {
    // It answers one line, then ends.
    let bench = Bench::new("#!/bin/sh\nread line\necho \"device $* heard $line\"\nexit 3\n");
    let mut board = Board::new("SN-1", 7);
    board.faults.device_args = vec!["--mute".into()];
    board.pace = pace;
    let state = bench.nest.load(board).unwrap();
    assert_eq!((state.loaded.as_deref(), state.firmware), (Some("SN-1"), None));

    let mut session = attach(&bench.selector()).unwrap();
    let pace = pace.unwrap_or_default();
    let image = firmware_image();
    let begun = Instant::now();
    flash_firmware(&mut session, FlashProgress::empty()).unwrap();
    assert!(begun.elapsed() >= pace.erase + pace.write * (image.len() as u32 / 4));
    assert_eq!(bench.nest.flash(0x1_0000).unwrap(), erased_but_for(&image, 0x1_0000));
    let mut core = session.core(0).unwrap();
    assert_eq!(core.read_word_32(0x1000_0060).unwrap(), 0xA000_0007);
    let mut console = bench.console();
    let begun = Instant::now();
    core.reset().unwrap();

    let boot = console.line();
    assert!(begun.elapsed() >= pace.boot);
    assert!(
        boot.starts_with("boot hilfw 1.0.0 id ") && boot.len() == "boot hilfw 1.0.0 id ".len() + 16,
        "{boot}"
    );
    assert_eq!(console.line(), "ready");
    assert_eq!(bench.nest.state().unwrap().firmware.as_deref(), Some("1.0.0"));

    assert_eq!(console.ask("provision"), "error run selftest first");
    assert_eq!(console.ask("reboot"), "error unknown command");
    assert_eq!(console.ask(&"x".repeat(400)), "error line too long");
    drop(core);
    drop(session);
    let _ = bench.nest.work().unwrap();
    assert_eq!(console.ask("selftest"), "measure rail-3v3 3301mV");
    for expected in [
        "measure rail-1v8 1799mV",
        "measure sleep-current 12uA",
        "measure crystal 32768Hz",
        "measure temperature 24500mdegC",
        "measure ram-errors 0count",
        "selftest done",
    ] {
        assert_eq!(console.line(), expected);
    }

    assert_eq!(console.ask("provision"), "fcc start");
    assert!(bench.nest.state().unwrap().fcc_running);
    let storage = bench.path().join("board-SN-1.fcc");
    assert_eq!(console.ask("hello"), format!("device --storage {} --mute heard hello", storage.display()));
    bench.await_state(|state| !state.fcc_running);
    assert_eq!(bench.nest.state().unwrap().device_end, Some(DeviceEnd::Exited(3)));
    assert_eq!(console.ask("are you back"), "error unknown command");
    bench.nest.work().unwrap()
}

#[test]
fn the_hex_file_holds_what_the_elf_file_flashes() {
    let text = fs::read_to_string(FIRMWARE_HEX).unwrap();
    let mut bytes = Vec::new();
    for line in text.lines().filter(|line| &line[7..9] == "00") {
        let record = data_encoding::HEXUPPER.decode(&line.as_bytes()[1..]).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([record[1], record[2]])), bytes.len());
        bytes.extend_from_slice(&record[4..record.len() - 1]);
    }
    assert_eq!(bytes, firmware_image());
}

#[test]
fn a_reset_of_the_chip_kills_the_device_program_and_gives_the_line_back() {
    let bench = Bench::with_board(ECHO, Faults::default());
    let mut session = attach(&bench.selector()).unwrap();
    flash_firmware(&mut session, FlashProgress::empty()).unwrap();
    let mut console = bench.console();
    bench::provision(&mut session, &mut console);
    assert_eq!(console.ask("selftest"), "selftest");
    session.core(0).unwrap().reset().unwrap();
    console.until("ready");
    let state = bench.nest.state().unwrap();
    assert_eq!((state.fcc_running, state.device_end), (false, Some(DeviceEnd::Killed)));
    assert_eq!(console.ask("selftest"), "measure rail-3v3 3301mV");
}

#[test]
fn each_board_is_new_and_measures_its_own_rail() {
    let bench = Bench::new(ECHO);
    for (id, rail) in [(1, 3301), (2, 2750)] {
        let faults = Faults { rail_3v3_mv: rail, ..Faults::default() };
        bench.nest.load(Board { faults, ..Board::new(format!("SN-{id}"), id) }).unwrap();
        assert_eq!(bench.nest.flash(0x400).unwrap(), [0xff; 0x400]);
        let mut session = attach(&bench.selector()).unwrap();
        assert_eq!(session.core(0).unwrap().read_word_32(0x1000_0060).unwrap(), 0xA000_0000 + id);
        flash_firmware(&mut session, FlashProgress::empty()).unwrap();
        let mut console = bench.console();
        session.core(0).unwrap().reset().unwrap();
        console.until("ready");
        assert_eq!(console.ask("selftest"), format!("measure rail-3v3 {rail}mV"));
        console.until("selftest done");
    }
    let state = bench.nest.unload().unwrap();
    assert_eq!(state.loaded, None);
    assert!(attach(&bench.selector()).is_err());
}

#[test]
fn a_host_that_is_killed_in_mid_flash_does_not_harm_the_next() {
    let bench = Bench::with_board(ECHO, Faults::default());
    for _ in 0..3 {
        bench::kill_a_host_in_mid_flash(&bench.selector());
        let mut session = attach(&bench.selector()).unwrap();
        flash_firmware(&mut session, FlashProgress::empty()).unwrap();
        assert_eq!(bench.nest.flash(firmware_image().len() as u32).unwrap(), firmware_image());
    }
}

/// Flashes until its first page is done, says so, and waits to be killed.
#[test]
#[ignore = "the victim of a_host_that_is_killed_in_mid_flash_does_not_harm_the_next"]
fn victim() {
    let Ok(selector) = std::env::var(bench::VICTIMS_SELECTOR) else { return };
    let mut session = attach(&selector).unwrap();
    let stop_half_way = FlashProgress::new(|event| {
        if let ProgressEvent::Progress { .. } = event {
            println!("\n{}", bench::IN_MID_FLASH);
            loop {
                std::thread::park();
            }
        }
    });
    flash_firmware(&mut session, stop_half_way).unwrap();
}

#[test]
fn a_flash_bit_that_is_stuck_low_fails_verification() {
    let image = firmware_image();
    let word = u32::from_le_bytes(image[0x100..0x104].try_into().unwrap());
    assert_ne!(word, 0);
    let stuck_low = vec![StuckLow { address: 0x100, mask: word & word.wrapping_neg() }];
    let bench = Bench::with_board(ECHO, Faults { stuck_low, ..Faults::default() });
    let mut session = attach(&bench.selector()).unwrap();
    let error = flash_firmware(&mut session, FlashProgress::empty()).map_err(anyhow::Error::new).unwrap_err();
    assert!(format!("{error:#}").contains("erif"), "{error:#}");
}

#[test]
fn flash_holds_only_what_the_algorithm_programs() {
    let mut target = Registry::from_builtin_families().get_target_by_name(bench::CHIP).unwrap();
    for algorithm in &mut target.flash_algorithms {
        let entry = usize::try_from(algorithm.pc_program_page & !1).unwrap();
        algorithm.instructions[entry..][..4].copy_from_slice(&[0x00, 0x20, 0x70, 0x47]); // movs r0, #0; bx lr
    }
    let bench = Bench::with_board(ECHO, Faults::default());
    let mut session = attach_as(&bench.selector(), target).unwrap();
    let error = flash_firmware(&mut session, FlashProgress::empty()).map_err(anyhow::Error::new).unwrap_err();
    assert!(format!("{error:#}").contains("erif"), "{error:#}");
    assert_eq!(bench.nest.flash(0x400).unwrap(), [0xff; 0x400]);
}

#[test]
fn a_probe_that_loses_contact_is_an_error() {
    let bench = Bench::with_board(ECHO, Faults { yank_after: Some(700), ..Faults::default() });
    let mut session = attach(&bench.selector()).unwrap();
    flash_firmware(&mut session, FlashProgress::empty()).unwrap_err();
    drop(session);
    assert!(attach(&bench.selector()).is_err());
}

#[test]
fn a_board_with_a_dead_clock_can_be_flashed_and_says_nothing() {
    let bench = Bench::with_board(ECHO, Faults { silent: true, ..Faults::default() });
    let mut session = attach(&bench.selector()).unwrap();
    flash_firmware(&mut session, FlashProgress::empty()).unwrap();
    session.core(0).unwrap().reset().unwrap();
    assert_eq!(bench.console().read_within(Duration::from_millis(200)), None);
    assert_eq!(bench.nest.state().unwrap().firmware, None);
}

#[test]
fn a_broken_uart_says_rubbish_without_end_of_line() {
    let bench = Bench::with_board(ECHO, Faults { garbage: true, ..Faults::default() });
    let mut session = attach(&bench.selector()).unwrap();
    flash_firmware(&mut session, FlashProgress::empty()).unwrap();
    let mut console = bench.console();
    session.core(0).unwrap().reset().unwrap();
    let mut heard = Vec::new();
    while heard.len() < 8192 {
        heard.push(console.read_within(bench::PATIENCE).expect("there is more rubbish"));
    }
    assert!(!heard.contains(&b'\n'));
}

#[test]
fn a_firmware_that_locks_the_core_up_can_be_replaced() {
    let bench = Bench::with_board(ECHO, Faults::default());
    // A vector table, an undefined instruction at 0x100, and a hard fault handler that is nowhere.
    let mut image = vec![0u8; 0x104];
    image[..8].copy_from_slice(&[0x00, 0x40, 0x00, 0x20, 0x01, 0x01, 0x00, 0x00]);
    image[12..16].fill(0xff);
    image[0x100..0x102].copy_from_slice(&[0x00, 0xde]);

    let mut session = attach(&bench.selector()).unwrap();
    bench::flash_bytes(&mut session, &image).unwrap();
    session.core(0).unwrap().reset().unwrap();
    session.core(0).unwrap().halt(bench::PATIENCE).unwrap();
    assert_eq!(bench.nest.flash(0x104).unwrap(), image);
    flash_firmware(&mut session, FlashProgress::empty()).unwrap();
    let mut console = bench.console();
    session.core(0).unwrap().reset().unwrap();
    console.until("ready");
}

#[test]
fn a_probe_server_that_is_told_to_stop_leaves_no_child() {
    let bench = Bench::with_board(ECHO, Faults::default());
    let children = bench.children();
    assert_eq!(children.len(), 1, "the emulator");
    bench.terminate();
    for child in children {
        bench::await_end_of(child);
    }
}
