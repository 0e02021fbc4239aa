//! What `stationctl recipe check` prints.

use data_encoding::HEXLOWER;

use crate::{
    folder::{Folder, RECIPE},
    signed::signed,
};

/// What `stationctl recipe check` says of the recipe of a folder, and whether it ended well.
fn recipe_check(folder: &Folder, arguments: &[&str]) -> (String, bool) {
    folder.stationctl(&[&["recipe", "check", "recipe.toml"], arguments].concat())
}

#[test]
fn what_a_unit_would_get_is_shown_without_a_station() {
    let (folder, _) = signed();
    let (said, good) = recipe_check(&folder, &["--serial", "B-7", "--certificate", "firmware.pem"]);
    assert!(good, "{said}");
    let digest = HEXLOWER.encode(&folder.recipe().digest);
    for sentence in [
        &format!("recipe recipe: SHA-256 {digest}\nsigned by the key of firmware.pem\n"),
        "  rail                             3135mV to 3465mV\n",
        "it makes a key mbed.BootstrapDevicePrivateKey and asks for a certificate of CN=sensor-B-7\n",
        "  mbed.BootstrapDeviceCert         the signer's, for its key mbed.BootstrapDevicePrivateKey\n",
        "  mbed.EndpointName                \"sensor-B-7\"\n",
        "  mbed.MemoryTotalKB               256\n",
        "  mbed.VendorId                    6f1d5a2e9b0c4c0e8a530b7f5f0f7a01\n",
        "  mbed.CurrentTime                 the time when it is given\n",
        "its tag leads to https://ex.com/c\n",
    ] {
        assert!(said.contains(sentence), "{sentence:?} is not in {said}");
    }
    folder.write("hilfw.elf", "another image");
    let (said, good) = recipe_check(&folder, &["--certificate", "firmware.pem"]);
    assert!(!good && said.contains("is not what was signed by the key of"), "{said}");
    let (said, good) = recipe_check(&folder, &[]);
    assert!(good && said.contains("signatures were not looked at"), "{said}");
    folder.write("recipe.toml", RECIPE.replace("memory-total-kb = 256\n", ""));
    let (said, good) = recipe_check(&folder, &[]);
    assert!(!good && said.contains("key `provision.memory-total-kb`: is missing"), "{said}");
}
