//! Simulators of all that a station touches, a reference controller, and the scenario tests.
