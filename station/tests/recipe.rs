//! What people are told about the recipes that they wrote, and what a unit gets by them.

#[path = "recipe/folder.rs"]
mod folder;
#[path = "recipe/import.rs"]
mod import;
#[path = "recipe/loaded.rs"]
mod loaded;
#[path = "recipe/refused.rs"]
mod refused;
#[path = "recipe/shown.rs"]
mod shown;
#[path = "recipe/signed.rs"]
mod signed;
#[path = "recipe/supplied.rs"]
mod supplied;
