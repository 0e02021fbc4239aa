//! Compiles the virtual board's firmware for the tests to flash.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=firmware");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (elf, hex) = (out.join("hilfw.elf"), out.join("hilfw.hex"));

    let mut compile = Command::new("arm-none-eabi-gcc");
    compile
        .args([
            "-mcpu=cortex-m0",
            "-mthumb",
            "-Os",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-ffreestanding",
            "-nostdlib",
        ])
        .args(["-Wl,--build-id=none", "-T", "firmware/hilfw.ld", "firmware/hilfw.c", "-lgcc", "-o"])
        .arg(&elf);
    run(compile);

    let mut convert = Command::new("arm-none-eabi-objcopy");
    convert.args(["-O", "ihex"]).arg(&elf).arg(&hex);
    run(convert);

    println!("cargo::rustc-env=FIRMWARE_ELF={}", elf.display());
    println!("cargo::rustc-env=FIRMWARE_HEX={}", hex.display());
}

fn run(mut command: Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{command:?} failed: {status}"),
        Err(error) => panic!(
            "{} does not start: {error}; the board's firmware needs it (Debian: apt install gcc-arm-none-eabi)",
            command.get_program().display()
        ),
    }
}
