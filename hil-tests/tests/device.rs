//! The simulated device against what was recorded from the real one, against the protocol's rules, and
//! against the station's own side of the protocol.

#[path = "device/bundle.rs"]
mod bundle;
#[path = "device/desk.rs"]
mod desk;
#[path = "device/inject.rs"]
mod inject;
#[path = "device/messages.rs"]
mod messages;
#[path = "device/recorded.rs"]
mod recorded;
#[path = "device/replay.rs"]
mod replay;
#[path = "device/rules.rs"]
mod rules;
#[path = "device/sim.rs"]
mod sim;
#[path = "device/station.rs"]
mod station;
#[path = "device/tcp.rs"]
mod tcp;
