//! Reads the TOML files people write for us; reports every mistake at once, with its line.
