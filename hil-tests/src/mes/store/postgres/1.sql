-- One row for each result of a unit. Digests and ids are lower-case hex.
CREATE TABLE results (
    arrival          bigint GENERATED ALWAYS AS IDENTITY, -- rises in the order in which one controller kept rows
    station          text NOT NULL,
    sequence         bigint NOT NULL,
    received         timestamptz NOT NULL DEFAULT now(),
    run              text NOT NULL,
    work_order       text NOT NULL,
    serial           text NOT NULL,
    nest             text NOT NULL,
    outcome          text NOT NULL,                       -- PASS, FAIL, ERROR, TIMEOUT, ABORTED
    failing_step     text,
    reason           text,
    started          timestamptz,
    ended            timestamptz,
    endpoint_name    text,
    enrolment_id     text,
    tag_uid          text,
    chip             text,
    recipe_sha256    text,
    flash_sha256     text,
    firmware_version text,
    station_version  text,
    quarantine       text,                                -- why the unit must be set aside
    steps            jsonb NOT NULL,                      -- [{step, outcome, seconds}]
    measurements     jsonb NOT NULL,                      -- [{name, value, unit, lower, upper, within}]
    fcc              jsonb NOT NULL,                      -- [{session, return_status, info, warnings, items}]
    own_values       jsonb NOT NULL,                      -- {name: value}
    message          bytea NOT NULL,                      -- factory.station.v1.Unit
    PRIMARY KEY (station, sequence)
) WITH (toast_tuple_target = 8160);                       -- a usual row, 3 KiB, is not worth compressing
CREATE INDEX results_serial ON results (serial);
CREATE INDEX results_work_order ON results (work_order);

-- What each station's log was at some point; the newest of a station reveals a log that was cut or rolled back.
CREATE TABLE heads (
    arrival        bigint GENERATED ALWAYS AS IDENTITY,
    station        text NOT NULL,
    sequence       bigint NOT NULL,
    received       timestamptz NOT NULL DEFAULT now(),
    log_id         text NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    closed_runs    bigint NOT NULL,
    statement      bytea NOT NULL,
    message        bytea NOT NULL,                        -- factory.station.v1.SignedHead
    PRIMARY KEY (station, sequence)
);

CREATE VIEW steps AS
SELECT station, sequence, serial, position - 1 AS position,
       one ->> 'step' AS step, one ->> 'outcome' AS outcome, (one ->> 'seconds')::double precision AS seconds
FROM results, jsonb_array_elements(steps) WITH ORDINALITY AS each_step (one, position);

CREATE VIEW measurements AS
SELECT station, sequence, serial, position - 1 AS position,
       one ->> 'name' AS name, (one ->> 'value')::bigint AS value, one ->> 'unit' AS unit,
       (one ->> 'lower')::bigint AS lower, (one ->> 'upper')::bigint AS upper, (one ->> 'within')::boolean AS within
FROM results, jsonb_array_elements(measurements) WITH ORDINALITY AS each_measurement (one, position);
