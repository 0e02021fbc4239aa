-- One row for each result of a unit. Times are UTC, RFC 3339; digests and ids lower-case hex.
CREATE TABLE results (
    arrival          INTEGER PRIMARY KEY,  -- rises in the order in which rows were kept
    station          TEXT NOT NULL,
    sequence         INTEGER NOT NULL,
    received         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    run              TEXT NOT NULL,
    work_order       TEXT NOT NULL,
    serial           TEXT NOT NULL,
    nest             TEXT NOT NULL,
    outcome          TEXT NOT NULL,        -- PASS, FAIL, ERROR, TIMEOUT, ABORTED
    failing_step     TEXT,
    reason           TEXT,
    started          TEXT,
    ended            TEXT,
    endpoint_name    TEXT,
    enrolment_id     TEXT,
    tag_uid          TEXT,
    chip             TEXT,
    recipe_sha256    TEXT,
    flash_sha256     TEXT,
    firmware_version TEXT,
    station_version  TEXT,
    quarantine       TEXT,                 -- why the unit must be set aside
    steps            TEXT NOT NULL,        -- JSON: [{step, outcome, seconds}]
    measurements     TEXT NOT NULL,        -- JSON: [{name, value, unit, lower, upper, within}]
    fcc              TEXT NOT NULL,        -- JSON: [{session, return_status, info, warnings, items}]
    own_values       TEXT NOT NULL,        -- JSON: {name: value}
    message          BLOB NOT NULL,        -- factory.station.v1.Unit
    UNIQUE (station, sequence)
);
CREATE INDEX results_serial ON results (serial);
CREATE INDEX results_work_order ON results (work_order);

-- What each station's log was at some point; the newest of a station reveals a log that was cut or rolled back.
CREATE TABLE heads (
    arrival        INTEGER PRIMARY KEY,
    station        TEXT NOT NULL,
    sequence       INTEGER NOT NULL,
    received       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    log_id         TEXT NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    closed_runs    INTEGER NOT NULL,
    statement      BLOB NOT NULL,
    message        BLOB NOT NULL,          -- factory.station.v1.SignedHead
    UNIQUE (station, sequence)
);

CREATE VIEW steps AS
SELECT station, sequence, serial, position.key AS position,
       position.value ->> 'step' AS step, position.value ->> 'outcome' AS outcome,
       position.value ->> 'seconds' AS seconds
FROM results, json_each(steps) AS position;

CREATE VIEW measurements AS
SELECT station, sequence, serial, position.key AS position,
       position.value ->> 'name' AS name, position.value ->> 'value' AS value, position.value ->> 'unit' AS unit,
       position.value ->> 'lower' AS lower, position.value ->> 'upper' AS upper,
       position.value ->> 'within' AS within
FROM results, json_each(measurements) AS position;
