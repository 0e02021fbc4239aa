//! A small, honest MES: takes results and acknowledges them once they are durable ([`mod@controller`]), says which units
//! may start ([`mod@interlock`]) and how many may while it is away ([`mod@allowance`]), and
//! drives a station through a list of boards ([`mod@line`]). Honest unless a test gives it another [`mod@temper`].

pub mod allowance;
pub mod controller;
pub mod interlock;
pub mod line;
pub mod temper;
