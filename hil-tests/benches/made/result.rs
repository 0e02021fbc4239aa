//! A result as a station's journal has it, for benches and for tests that need no line.

use std::time::SystemTime;

use factory_proto::{ids::EnrolmentId, outcome::Outcome};
use factory_station::{
    recipe::template::Values,
    record::{
        FccAnswer, FccSent, Findings, Flash, Identity, Measurement, RunClosed, RunId, RunOpened, StepEnded,
        Tag,
    },
    step::Step,
};
use uuid::Uuid;

/// A result as the virtual line has them: 6 steps, 6 measurements, a certificate, 2 KiB on the console.
pub fn closed(number: u64) -> RunClosed {
    let now = SystemTime::now();
    let fingerprint = [7; 32];
    let measurement = |name: &str| Measurement {
        name: name.to_owned(),
        value: "3301mV".parse().expect("it is a quantity"),
        limits: factory_proto::units::Limits::new(
            "3135mV".parse().expect("it is a quantity"),
            "3465mV".parse().expect("it is a quantity"),
        )
        .expect("they are limits"),
    };
    RunClosed {
        opened: RunOpened {
            run: RunId::of_command(Uuid::from_u128(u128::from(number))),
            order: Some("WO-1".parse().expect("it is an id")),
            serial: format!("SN{number:06}").parse().expect("it is a serial"),
            nest: "A".parse().expect("it is a name"),
            recipe_digest: [1; 32],
            started: now,
            values: Values::default(),
            allowed: None,
            golden: None,
        },
        ended: now,
        outcome: Outcome::Pass,
        stopped: None,
        findings: Findings {
            steps: Step::ALL
                .map(|step| StepEnded { step, started: now, ended: now, outcome: Outcome::Pass })
                .to_vec(),
            measurements: ["rail-3v3", "rail-1v8", "vbat", "current", "temperature", "rssi"]
                .map(measurement)
                .to_vec(),
            firmware_version: Some("1.4.2".to_owned()),
            flash: Some(Flash { bytes: 16_384, digest: [2; 32] }),
            identity: Some(Identity {
                endpoint_name: format!("sensor-{number}").parse().expect("it is a name"),
                certificate: vec![0x30; 600],
                fingerprint,
                enrolment_id: EnrolmentId::of_fingerprint(&fingerprint),
            }),
            fcc_answers: vec![
                FccAnswer {
                    session: "1".to_owned(),
                    return_status: Some(0),
                    info: String::new(),
                    warnings: Vec::new(),
                    sent: Some(FccSent { at: SystemTime::now(), injected: Vec::new(), took: Some(50_000) }),
                };
                2
            ],
            tag: Some(Tag { uid: vec![4; 7], ndef: vec![5; 110] }),
            console_log: "measure rail-3v3 3301mV\n".repeat(85),
            chip: Some(vec![6; 8]),
            resumptions: Vec::new(),
            requests: Vec::new(),
        },
        quarantine: None,
    }
}
