//! The journal as its users see it, on real files.

mod damage;
mod index;
mod kill;
mod log;
mod support;
mod time;
mod usage;
