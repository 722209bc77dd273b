//! The tables of a farm.

use pg_schema::Migrations;

/// The scripts that migrate the schema from one version to the next. Append only.
///
/// `builds` has only builds without a result, so that a year of results does not slow the queue down.
/// No index has the beat of a host or the epoch of a build: their changes stay within their pages (HOT).
const SCRIPTS: [&str; 16] = [
    FIRST,
    VIEWS,
    TRANSFERS,
    OFFERS,
    RETENTION,
    SESSIONS,
    CONTENTS,
    WINDOWS,
    SOURCES,
    SCHEDULES,
    ARCHIVES,
    SELECTIONS,
    SCHEDULE_SOURCES,
    TRIALS,
    MESSAGES,
    NOTIFICATIONS,
];

/// The queue, hosts and results.
const FIRST: &str = r#"
    CREATE TABLE hosts (
        id bigint PRIMARY KEY,
        name text COLLATE "C" NOT NULL UNIQUE,
        key_hash bytea UNIQUE,
        beat bigint NOT NULL DEFAULT 0,
        seen timestamptz,
        drained boolean NOT NULL DEFAULT false,
        offer text NOT NULL DEFAULT '{}') WITH (fillfactor = 50);
    CREATE TABLE enrolments (
        token_hash bytea PRIMARY KEY,
        name text COLLATE "C" NOT NULL,
        expires timestamptz NOT NULL);
    CREATE TABLE machines (
        name text COLLATE "C" PRIMARY KEY,
        revision bigint NOT NULL);
    CREATE SEQUENCE build_ids;
    CREATE TABLE submissions (
        key text COLLATE "C" PRIMARY KEY,
        build bigint NOT NULL,
        submitted timestamptz NOT NULL DEFAULT now());
    CREATE TABLE builds (
        id bigint PRIMARY KEY,
        submitter text COLLATE "C" NOT NULL,
        priority integer NOT NULL,
        machine text COLLATE "C" NOT NULL,
        requirements text NOT NULL,
        submitted timestamptz NOT NULL,
        not_before timestamptz NOT NULL DEFAULT '-infinity',
        state smallint NOT NULL DEFAULT 0,
        epoch bigint NOT NULL DEFAULT 0,
        host bigint,
        claimed timestamptz,
        charged_ms bigint NOT NULL DEFAULT 0,
        losses bigint NOT NULL DEFAULT 0,
        canceled boolean NOT NULL DEFAULT false,
        revision bigint NOT NULL DEFAULT 0) WITH (fillfactor = 70);
    CREATE INDEX builds_queue ON builds (machine, submitter, priority DESC, id) WHERE state = 0;
    CREATE INDEX builds_leased ON builds (host) WHERE state = 1;
    CREATE TABLE finished (
        id bigint NOT NULL,
        submitter text COLLATE "C" NOT NULL,
        machine text COLLATE "C" NOT NULL,
        requirements text NOT NULL,
        submitted timestamptz NOT NULL,
        finished timestamptz NOT NULL DEFAULT now(),
        epoch bigint NOT NULL,
        host bigint,
        losses bigint NOT NULL,
        revision bigint NOT NULL,
        outcome text NOT NULL,
        is_reported boolean NOT NULL) PARTITION BY RANGE (finished);
    CREATE INDEX finished_id ON finished (id);
    CREATE TABLE finished_default PARTITION OF finished DEFAULT;
    CREATE TABLE used (
        submitter text COLLATE "C" NOT NULL,
        day date NOT NULL,
        slot smallint NOT NULL,
        ms bigint NOT NULL,
        PRIMARY KEY (submitter, day, slot)) WITH (fillfactor = 50);
"#;

/// The columns that lists show and select by, lost attempts, and the tokens of clients. The indexes are on
/// results only: a queue has few rows, and each of its changes would pay for them.
const VIEWS: &str = r#"
    ALTER TABLE builds
        ADD target text COLLATE "C",
        ADD project text COLLATE "C";
    ALTER TABLE finished
        ADD target text COLLATE "C",
        ADD project text COLLATE "C",
        ADD priority integer NOT NULL DEFAULT 0,
        ADD claimed timestamptz;
    CREATE INDEX finished_machine ON finished (machine, id);
    CREATE INDEX finished_submitter ON finished (submitter, id);
    CREATE INDEX finished_host ON finished (host, id);
    CREATE INDEX finished_outcome ON finished (outcome, id);
    CREATE INDEX finished_target ON finished (target, id) WHERE target IS NOT NULL;
    CREATE INDEX finished_project ON finished (project, id) WHERE project IS NOT NULL;
    CREATE TABLE lost_attempts (
        build bigint NOT NULL,
        epoch bigint NOT NULL,
        host bigint,
        claimed timestamptz,
        ended timestamptz NOT NULL DEFAULT now(),
        is_released boolean NOT NULL,
        PRIMARY KEY (build, epoch));
    CREATE TABLE tokens (
        name text COLLATE "C" PRIMARY KEY,
        hash bytea NOT NULL UNIQUE,
        scope text NOT NULL,
        created timestamptz NOT NULL DEFAULT now());
"#;

/// The transfers that coordinators wait for.
const TRANSFERS: &str = r#"
    CREATE TABLE transfers (
        id text COLLATE "C" PRIMARY KEY,
        host bigint NOT NULL,
        coordinator text NOT NULL,
        wanted text NOT NULL,
        opened timestamptz NOT NULL DEFAULT now());
"#;

/// The rows of beats are narrow: offers are in a table of their own, which is written when one changes.
/// `version` rises with each change of a host that coordinators keep in memory, and `orders` with those that
/// its held polls are told of. `claimed_beat` is the beat of the host at the claim: the leases of a host
/// rise by it, so that those that are over need not be passed to find the others.
const OFFERS: &str = r"
    CREATE TABLE offers (
        host bigint PRIMARY KEY,
        offer text NOT NULL) WITH (fillfactor = 70);
    INSERT INTO offers SELECT id, offer FROM hosts;
    ALTER TABLE hosts DROP COLUMN offer,
        ADD COLUMN version bigint NOT NULL DEFAULT 0,
        ADD COLUMN orders bigint NOT NULL DEFAULT 0;
    ALTER TABLE builds ADD COLUMN claimed_beat bigint NOT NULL DEFAULT 0;
    DROP INDEX builds_leased;
    CREATE INDEX builds_leased ON builds (host, claimed_beat) WHERE state = 1;
";

/// The indexes by which old rows are found. Rows are in the order of their times, so that they are small.
const RETENTION: &str = r"
    CREATE INDEX submissions_submitted ON submissions USING brin (submitted);
    CREATE INDEX lost_attempts_ended ON lost_attempts USING brin (ended);
";

/// The sessions of browsers, which every coordinator serves.
const SESSIONS: &str = r"
    CREATE TABLE web_sessions (
        hash bytea PRIMARY KEY,
        token bytea NOT NULL,
        opened timestamptz NOT NULL DEFAULT now(),
        used timestamptz NOT NULL DEFAULT now());
    CREATE INDEX web_sessions_used ON web_sessions (used);
";

/// The content of published revisions, as the digest of its manifest.
const CONTENTS: &str = r#"
    ALTER TABLE machines ADD content text COLLATE "C";
"#;

/// The maintenance windows of hosts, each with its present or next occurrence. `weekly` has the days and
/// times of one that comes back.
const WINDOWS: &str = r"
    CREATE SEQUENCE window_ids;
    CREATE TABLE windows (
        id bigint PRIMARY KEY,
        host bigint NOT NULL,
        opens timestamptz NOT NULL,
        closes timestamptz NOT NULL,
        weekly text,
        reason text NOT NULL);
    CREATE INDEX windows_host ON windows (host);
";

/// The coordinators and the sources that they keep as files. A row of `source_copies` without one of `sources`
/// is a file that its coordinator deletes.
const SOURCES: &str = r#"
    CREATE TABLE coordinators (
        url text COLLATE "C" PRIMARY KEY,
        key_hash bytea NOT NULL UNIQUE,
        keeps_sources boolean NOT NULL,
        beat bigint NOT NULL DEFAULT 0,
        seen timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 50);
    CREATE TABLE sources (
        digest text COLLATE "C" PRIMARY KEY,
        used timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 70);
    CREATE TABLE source_copies (
        digest text COLLATE "C" NOT NULL,
        coordinator text COLLATE "C" NOT NULL,
        PRIMARY KEY (digest, coordinator));
    CREATE INDEX source_copies_coordinator ON source_copies (coordinator);
    ALTER TABLE builds ADD sources text[] COLLATE "C";
    CREATE INDEX builds_sources ON builds USING gin (sources) WHERE sources IS NOT NULL;
"#;

/// The schedules. Times are milliseconds since 1970, so that a run finds exactly the mark that was read.
const SCHEDULES: &str = r#"
    CREATE TABLE schedules (
        name text COLLATE "C" PRIMARY KEY,
        timing text NOT NULL,
        coalesces boolean NOT NULL,
        submitter text COLLATE "C" NOT NULL,
        priority integer NOT NULL,
        machine text COLLATE "C" NOT NULL,
        requirements text NOT NULL,
        target text COLLATE "C",
        project text COLLATE "C",
        added bigint NOT NULL,
        since bigint NOT NULL,
        paused boolean NOT NULL DEFAULT false,
        last_at bigint,
        last_due text,
        last_result text,
        last_build bigint,
        shown_build bigint) WITH (fillfactor = 70);
"#;

/// The builds whose files wait for the object store, and those whose files are there: `files` has their
/// names, sizes and hashes, and is `NULL` if no host had them any more.
const ARCHIVES: &str = r"
    CREATE TABLE uploads (
        build bigint PRIMARY KEY,
        epoch bigint NOT NULL,
        host bigint NOT NULL,
        ended timestamptz NOT NULL DEFAULT now(),
        attempts bigint NOT NULL DEFAULT 0,
        due timestamptz NOT NULL DEFAULT now());
    CREATE INDEX uploads_due ON uploads (due, build);
    CREATE TABLE archives (
        build bigint PRIMARY KEY,
        epoch bigint NOT NULL,
        ended timestamptz NOT NULL,
        files text);
    CREATE INDEX archives_ended ON archives USING brin (ended);
";

/// The machines of offers and the hosts that start nothing, by which lists of hosts select. Hosts that have
/// enrolled before get both with their next poll.
const SELECTIONS: &str = r#"
    ALTER TABLE offers ADD machines text[] COLLATE "C" NOT NULL DEFAULT '{}';
    CREATE INDEX offers_machines ON offers USING gin (machines);
    ALTER TABLE hosts ADD halted boolean NOT NULL DEFAULT false;
"#;

/// The sources that schedules name, which are kept as long as they do.
const SCHEDULE_SOURCES: &str = r#"
    ALTER TABLE schedules ADD sources text[] COLLATE "C";
    CREATE INDEX schedules_sources ON schedules USING gin (sources) WHERE sources IS NOT NULL;
"#;

/// The last trial of each machine, and the runs of builds on candidates, of which a build has one at most.
/// `promoted` is `NULL` while a trial is open, and `failure` unless the build runs again because of it. `trial` is
/// the trial of a build's last claim.
const TRIALS: &str = r#"
    CREATE SEQUENCE trial_numbers;
    CREATE TABLE trials (
        machine text COLLATE "C" PRIMARY KEY,
        number bigint NOT NULL,
        revision bigint NOT NULL,
        content text COLLATE "C",
        terms text NOT NULL,
        began timestamptz NOT NULL,
        promoted boolean,
        reason text,
        ended timestamptz);
    CREATE TABLE trial_runs (
        build bigint PRIMARY KEY,
        trial bigint NOT NULL,
        revision bigint NOT NULL,
        epoch bigint NOT NULL,
        host bigint NOT NULL,
        began timestamptz NOT NULL DEFAULT now(),
        failure text);
    CREATE INDEX trial_runs_trial ON trial_runs (trial);
    CREATE INDEX trial_runs_began ON trial_runs USING brin (began);
    ALTER TABLE builds
        ADD trial bigint,
        ADD tried boolean NOT NULL DEFAULT false;
"#;

/// The sentences about results.
const MESSAGES: &str = r"
    ALTER TABLE finished ADD message text;
";

/// Notifications. `notify_rules` has a version for each rule, which each change of its rows raises. A row of
/// `notify_ends` is the end of a build that a rule has not weighed.
const NOTIFICATIONS: &str = r#"
    CREATE TABLE notify_rules (
        rule text COLLATE "C" PRIMARY KEY,
        version bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50);
    CREATE TABLE notify_ends (
        number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
        rule text COLLATE "C" NOT NULL,
        build bigint NOT NULL,
        canceled boolean NOT NULL,
        ended timestamptz NOT NULL DEFAULT now());
    CREATE INDEX notify_ends_rule ON notify_ends (rule, number);
    CREATE TABLE package_states (
        rule text COLLATE "C" NOT NULL,
        machine text COLLATE "C" NOT NULL,
        package text COLLATE "C" NOT NULL,
        state text NOT NULL,
        PRIMARY KEY (rule, machine, package));
    CREATE TABLE told_problems (
        rule text COLLATE "C" NOT NULL,
        problem text COLLATE "C" NOT NULL,
        subject text COLLATE "C" NOT NULL,
        content text NOT NULL,
        PRIMARY KEY (rule, problem, subject));
    CREATE TABLE notifications (
        number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
        id text NOT NULL DEFAULT 'msg_' || replace(gen_random_uuid()::text, '-', ''),
        rule text COLLATE "C" NOT NULL,
        content text NOT NULL,
        created timestamptz NOT NULL DEFAULT now(),
        attempts bigint NOT NULL DEFAULT 0,
        due timestamptz NOT NULL DEFAULT now(),
        failure text NOT NULL DEFAULT '',
        settled timestamptz,
        given_up boolean NOT NULL DEFAULT false) WITH (fillfactor = 70);
    CREATE INDEX notifications_waiting ON notifications (rule, number) WHERE settled IS NULL;
    CREATE INDEX notifications_settled ON notifications (rule, number) WHERE settled IS NOT NULL;
"#;

/// The migrations of the farm.
pub(crate) const MIGRATIONS: Migrations = Migrations {
    table: "farm_schema",
    lock: 0x6661_726d,
    scripts: &SCRIPTS,
};

/// Creates the partitions of this month and the next two.
pub(crate) const PARTITIONS: &str = r"
    DO $$
    DECLARE
        first date;
    BEGIN
        PERFORM pg_advisory_xact_lock(1717662317);
        FOR months IN 0..2 LOOP
            first := date_trunc('month', pg_catalog.now()) + make_interval(months => months);
            EXECUTE format(
                'CREATE TABLE IF NOT EXISTS %I PARTITION OF finished FOR VALUES FROM (%L) TO (%L)',
                'finished_' || to_char(first, 'YYYY_MM'), first, first + interval '1 month');
        END LOOP;
    END $$";
