//! A small, honest MES: takes results and acknowledges them once they are durable ([`controller`]), and
//! drives a station through a list of boards ([`line`]).

pub mod controller;
pub mod line;
