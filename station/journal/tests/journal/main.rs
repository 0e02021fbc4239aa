//! The journal as its users see it, on real files.

mod archive;
mod damage;
mod index;
mod kill;
mod log;
mod space;
mod support;
mod time;
mod tools;
mod usage;
