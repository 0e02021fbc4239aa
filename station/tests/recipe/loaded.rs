//! What a good recipe says, and in which folder it lies.

use std::{fs, time::Duration};

use factory_station::step::Step;

use crate::folder::{Folder, RECIPE};

#[test]
fn the_recipe_of_the_virtual_line_loads() {
    let folder = Folder::new(include_str!("../../../hil-tests/scenarios/sensor.toml"));
    let recipes = folder.load().unwrap();
    let recipe = recipes.named(&"recipe".parse().unwrap()).unwrap();
    assert_eq!(recipe.attempts.get(), 2);
    assert_eq!(recipe.self_test.limits.len(), 6);
    assert_eq!(recipe.deadline(Step::Provision), Duration::from_secs(5));
    assert!(recipes.get(&recipe.name, &recipe.digest).is_ok());
    let error = recipes.get(&recipe.name, &[0; 32]).err().unwrap().to_string();
    let digest = "0".repeat(64);
    let expected = format!(
        "this station does not hold recipe recipe with SHA-256 {digest}: upload it, or open a new order"
    );
    assert_eq!(error, expected);
}

#[test]
fn a_short_recipe_takes_its_defaults() {
    let recipe = Folder::new(RECIPE).recipe();
    assert_eq!(recipe.attempts.get(), 1);
    assert_eq!(recipe.deadline(Step::Flash), Duration::from_secs(60));
    assert_eq!(recipe.deadline(Step::Tag), Duration::from_secs(10));
}

#[test]
fn a_recipe_is_another_when_a_file_that_it_names_is() {
    let folder = Folder::new(RECIPE);
    let digest = || {
        let recipes = folder.load().unwrap();
        recipes.named(&"recipe".parse().unwrap()).unwrap().digest
    };
    let first = digest();
    assert_eq!(digest(), first);
    folder.write("hilfw.elf", "another image");
    assert_ne!(digest(), first);
}

#[test]
fn the_mistakes_of_several_recipes_are_told_at_once_in_the_order_of_their_names() {
    let folder = Folder::new(RECIPE);
    for name in ["c", "a", "b"] {
        folder.write(&format!("{name}.toml"), "flash = 1");
    }
    let error = folder.load().err().unwrap().to_string();
    let error = folder.relative(&error);
    let mut files: Vec<_> = error.lines().map(|line| line.split(':').next().unwrap()).collect();
    files.dedup();
    assert_eq!(files, ["a.toml", "b.toml", "c.toml"], "{error}");
}

#[test]
fn a_recipe_file_must_be_named_like_a_recipe() {
    let folder = Folder::new(RECIPE);
    fs::rename(folder.path("recipe.toml"), folder.path("my recipe.toml")).unwrap();
    let error = folder.relative(&folder.load().err().unwrap().to_string());
    let expected = "the name of the recipe file my recipe.toml holds ' ', only A-Z a-z 0-9 . _ - are allowed";
    assert_eq!(error, expected);
}
