//! Recipes and what they name, held against their signatures.

use std::fs;

use factory_station::{
    recipe::Recipes,
    signatures::{Demand, Signatures},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SigningKey};

use crate::folder::{Folder, RECIPE};

/// Signs a file as `factory-signerd sign-image` does.
pub fn sign(folder: &Folder, name: &str, key: &KeyPair) {
    let signature = key.sign(&fs::read(folder.path(name)).unwrap()).unwrap();
    fs::write(folder.path(&format!("{name}.sig")), signature).unwrap();
}

/// A folder whose files are all signed by the key of `firmware.pem`.
pub fn signed() -> (Folder, KeyPair) {
    let (folder, key) = (Folder::new(RECIPE), KeyPair::generate().unwrap());
    fs::write(folder.path("firmware.pem"), certificate(&key, |_| ())).unwrap();
    for name in ["recipe.toml", "hilfw.elf", "bootstrap-ca.pem"] {
        sign(&folder, name, &key);
    }
    (folder, key)
}

fn certificate(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    change(&mut params);
    params.self_signed(key).unwrap().pem()
}

fn load_signed(folder: &Folder) -> Result<Recipes, String> {
    let demand = Demand::By(folder.path("firmware.pem"));
    let signatures = Signatures::demanded(&demand).map_err(|error| error.to_string())?;
    Recipes::load(folder.0.path(), &signatures).map_err(|error| error.to_string())
}

#[test]
fn a_recipe_and_what_it_names_are_what_was_signed_or_refused() {
    let check = |spoil: &dyn Fn(&Folder), sentences: &[&str]| {
        let (folder, _) = signed();
        load_signed(&folder).unwrap();
        spoil(&folder);
        let error = load_signed(&folder).err().unwrap();
        for sentence in sentences {
            assert!(error.contains(sentence), "{sentence:?} is not in {error}");
        }
    };
    let append = |folder: &Folder, name: &str| {
        let bytes = fs::read(folder.path(name)).unwrap();
        fs::write(folder.path(name), [bytes.as_slice(), b"\n"].concat()).unwrap();
    };
    let differs = "is not what was signed by the key of";
    check(&|folder| append(folder, "recipe.toml"), &["recipe.toml is not what was signed by the key of"]);
    check(
        &|folder| append(folder, "hilfw.elf"),
        &["recipe.toml:3: key `flash.image`: ", "hilfw.elf", differs],
    );
    check(&|folder| append(folder, "bootstrap-ca.pem"), &["key `provision.server-ca`: ", differs]);
    let unsigned = "is not signed (";
    for name in ["recipe.toml", "hilfw.elf", "bootstrap-ca.pem"] {
        let signature = format!("{name}.sig");
        check(
            &|folder| fs::remove_file(folder.path(&signature)).unwrap(),
            &[name, unsigned, "sign it with `factory-signerd sign-image`"],
        );
        check(&|folder| fs::write(folder.path(&signature), "").unwrap(), &[name, differs]);
        check(&|folder| fs::write(folder.path(&signature), [0x30; 100]).unwrap(), &[name, differs]);
        check(&|folder| fs::write(folder.path(&signature), [0; 200]).unwrap(), &[name, "is no signature"]);
        check(&|folder| sign(folder, name, &KeyPair::generate().unwrap()), &[name, differs]);
    }
    // The signature of another file.
    check(
        &|folder| {
            fs::copy(folder.path("recipe.toml.sig"), folder.path("hilfw.elf.sig")).unwrap();
        },
        &["hilfw.elf", differs],
    );
}

#[test]
fn a_certificate_that_cannot_stand_for_signatures_is_refused() {
    let check = |pem: &str, sentence: &str| {
        let (folder, _) = signed();
        fs::write(folder.path("firmware.pem"), pem).unwrap();
        let error = load_signed(&folder).err().unwrap();
        assert!(error.contains(sentence), "{sentence:?} is not in {error}");
    };
    let key = KeyPair::generate().unwrap();
    check("", "firmware.pem of `signatures` cannot be read as PEM");
    check(&certificate(&key, |it| it.key_usages.clear()), "is not for signing data");
    let ca = |it: &mut CertificateParams| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    check(&certificate(&key, ca), "is not for signing data: give the one of the signer's firmware key");
    let over = |it: &mut CertificateParams| it.not_after = rcgen::date_time_ymd(2020, 1, 1);
    check(&certificate(&key, over), "only: give the one of the signer's firmware key");
    let other_kind = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    check(&certificate(&other_kind, |_| ()), "is not for a P-256 key");
}
