use factory_proto::station::{Identity, Measurement, Outcome, TagResult, Unit};

use super::*;
use crate::cluster::Cluster;

/// Says something in as many columns as there are.
fn row(station: &str) -> ResultRow {
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 250_000_000 });
    let unit = Unit {
        run_id: "run".to_owned(),
        work_order: "WO-1".to_owned(),
        serial: "SN1".to_owned(),
        nest: "A".to_owned(),
        outcome: Outcome::Fail.into(),
        failing_step: "tag".to_owned(),
        reason: "said \0 and \u{1F600}".to_owned(),
        started: time(1_700_000_000),
        ended: time(1_700_000_010),
        measurements: vec![Measurement { name: "vbat".to_owned(), value: 3290, ..Measurement::default() }],
        identity: Some(Identity { endpoint_name: "sensor-1".to_owned(), ..Identity::default() }),
        tag: Some(TagResult { uid: vec![4; 7], ..TagResult::default() }),
        recipe_digest: vec![7; 32],
        firmware_version: "1.0.0".to_owned(),
        golden: true,
        ..Unit::default()
    };
    ResultRow::new(station, 1, unit).unwrap()
}

#[test]
fn a_result_is_the_same_row_whichever_way_it_is_brought() {
    let cluster = Cluster::start(false).unwrap();
    let mut store = Postgres::open(&config(&cluster.address()).unwrap()).unwrap();
    let session = store.session().unwrap();
    let kept = Kept { results: 1, ..Kept::default() };
    for (station, bring) in [("line-1", copy_results as Bring), ("line-2", insert_results)] {
        let batch = Batch { results: vec![row(station)], heads: Vec::new() };
        assert_eq!(session.keep_by(bring, &[&batch]).unwrap(), std::slice::from_ref(&kept));
    }
    let rows = "SELECT count(*), count(DISTINCT to_jsonb(r) - '{arrival, station, received}'::text[]), \
                bool_and(golden) FROM results r";
    let row = session.client.query_one(rows, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, bool>(2)), (2, 1, true));
}
