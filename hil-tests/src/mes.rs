//! A small, honest MES: takes results and acknowledges them once they are durable ([`mod@controller`]), and
//! drives a station through a list of boards ([`mod@line`]).

pub mod controller;
pub mod line;
