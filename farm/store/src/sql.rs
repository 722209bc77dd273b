//! The statements, all of them constants. Each is a transaction of its own, so that no connection ever
//! idles within one.

mod access;
mod archives;
mod hosts;
mod notifications;
mod schedules;
mod sources;
mod trials;
mod views;
mod windows;

pub(crate) use access::{
    ADD_TOKEN, CLOSE_SESSION, ENROL, HOST_OF_KEY, INVITE, OPEN_SESSION, REVOKE, REVOKE_TOKEN,
    SESSION, TOKEN, TOKENS, TOUCH_SESSION,
};
pub(crate) use archives::{
    ARCHIVE, ARCHIVE_OF, DEFER_UPLOAD, FORGET_ARCHIVES, FORGET_UPLOADS, IS_ARCHIVED, TAKE_UPLOADS,
    UPLOADS,
};
pub(crate) use hosts::{HOST_NAME, HOST_OF_NAME, HOST_STATES, SITES, STATE};
pub(crate) use notifications::{
    ABSENT_COORDINATORS, ADD_RULES, DEFER_NOTIFICATION, ENDS, FORGET_NOTIFICATIONS, FORGET_SETTLED,
    GIVE_UP_NOTIFICATIONS, NOTIFICATION_COUNTS, PACKAGE_STATES, SETTLE_NOTIFICATION, SOURCELESS,
    TAKE_NOTIFICATION, TELL_PROBLEMS, TOLD_PROBLEMS, WEIGH,
};
pub(crate) use schedules::{
    ADD_SCHEDULE, PAUSE_SCHEDULE, PROJECTS, REMOVE_SCHEDULE, RUN_SCHEDULE, SCHEDULE_VIEWS,
    SCHEDULES,
};
pub(crate) use sources::{
    ATTEND, COORDINATOR, COORDINATORS, COPIES, COUNT_SOURCES, DISCARD, EXPIRE, HOLDERS, KEEP, KEPT,
    KNOWN_SOURCES, LOSE, REGISTER, SEEN_COORDINATORS,
};
pub(crate) use trials::{
    BEGIN_TRIAL, END_TRIAL, FAIL_ON_TRIAL, FORGET_RUNS, IS_ENDED, REVISIONS, RUN_ON_TRIAL, TRIALS,
};
pub(crate) use views::{FAILING, LOST, QUEUE, USUAL};
pub(crate) use windows::{
    ADD_WINDOW, END_WINDOW, MOVE_WINDOW, NOW, PLACEMENT_NEEDS, REMOVE_WINDOW, USUALS, WINDOWS,
    WINDOWS_OF,
};

/// Reads the build of an idempotency key.
pub(crate) const SUBMITTED: &str = "SELECT build FROM submissions WHERE key = $1";

/// Adds a build, unless its idempotency key is known or one of its sources is not. The sources are noted as
/// needed.
pub(crate) const SUBMIT: &str = "
    WITH locked AS (
        SELECT digest FROM sources WHERE digest = ANY($8::text[]) ORDER BY digest FOR NO KEY UPDATE),
    needed AS (
        UPDATE sources SET used = now() FROM locked WHERE sources.digest = locked.digest
        RETURNING sources.digest),
    added AS (
        INSERT INTO submissions (key, build) SELECT $1, nextval('build_ids')
        WHERE (SELECT count(*) FROM needed) = cardinality($8::text[])
        ON CONFLICT DO NOTHING RETURNING build)
    INSERT INTO builds
        (id, submitter, priority, machine, requirements, submitted, target, project, sources)
    SELECT build, $2, $3, $4, $5, now(), $6, $7, nullif($8::text[], '{}') FROM added RETURNING id";

/// Finishes a build that waits as `abort`. The rules for notifications `$2` are to weigh it.
pub(crate) const CANCEL_QUEUED: &str = "
    WITH gone AS (DELETE FROM builds WHERE id = $1 AND state = 0 RETURNING *),
    told AS (
        INSERT INTO notify_ends (rule, build, canceled)
        SELECT rule, id, true FROM gone, unnest($2::text[]) AS rule)
    INSERT INTO finished (id, submitter, machine, requirements, submitted, epoch, host, losses,
        revision, outcome, is_reported, target, project, priority, claimed)
    SELECT id, submitter, machine, requirements, submitted, epoch, host, losses, revision, 'abort', false,
        target, project, priority, claimed
    FROM gone";

/// Marks a build with a lease as canceled, which is an order to its host.
pub(crate) const CANCEL_LEASED: &str = "
    WITH canceled AS (
        UPDATE builds SET canceled = true WHERE id = $1 AND state = 1 RETURNING host),
    ordered AS (
        UPDATE hosts SET orders = orders + 1 FROM canceled WHERE hosts.id = canceled.host)
    SELECT host FROM canceled";

/// Reads the outcome of a build.
pub(crate) const OUTCOME: &str = "SELECT outcome FROM finished WHERE id = $1";

/// Raises the beats of hosts, and stores the offers that have changed. The rows are locked in the order of
/// their keys, so that two coordinators do not wait for each other. The leases are read by the next
/// statement: a snapshot that was taken before the beats changed could have leases that another
/// coordinator has taken since.
pub(crate) const BEATS: &str = "
    WITH locked AS (
        SELECT id FROM hosts WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE),
    polled AS (
        SELECT locked.id, offer, string_to_array(machines, ',') AS machines, halted,
            NOT EXISTS (
                SELECT FROM offers WHERE host = locked.id AND offers.offer = new.offer
                    AND offers.machines = string_to_array(new.machines, ',')) AS is_new
        FROM locked JOIN unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[])
            AS new (id, offer, machines, halted) ON new.id = locked.id),
    changed AS (
        INSERT INTO offers (host, offer, machines) SELECT id, offer, machines FROM polled WHERE is_new
        ON CONFLICT (host) DO UPDATE SET offer = excluded.offer, machines = excluded.machines)
    UPDATE hosts SET beat = beat + 1, seen = now(), version = version + is_new::integer,
        halted = polled.halted
    FROM polled WHERE hosts.id = polled.id AND hosts.id = ANY($1)
    RETURNING hosts.id, beat,
        drained OR EXISTS (
            SELECT FROM windows WHERE windows.host = hosts.id AND opens <= now()
                AND (now() < closes OR weekly IS NOT NULL)),
        (SELECT (extract(epoch FROM min(opens) - now()) * 1000)::bigint FROM windows
            WHERE windows.host = hosts.id AND opens > now())";

/// Reads the leases of hosts, each from the claim at a beat on. The subquery has a limit, so that it is read
/// for one host after the other, by the index: few leases are live, and statistics know nothing of the dead
/// rows beside them.
pub(crate) const LEASES: &str = "
    SELECT found.id, epoch, requirements, canceled, candidate, wanted.host, claimed_beat
    FROM unnest($1::bigint[], $2::bigint[]) AS wanted (host, beat), LATERAL (
        SELECT id, epoch, requirements, canceled, claimed_beat,
            CASE WHEN trial IS NOT NULL THEN revision END AS candidate
        FROM builds
        WHERE builds.host = wanted.host AND claimed_beat >= wanted.beat AND state = 1
        ORDER BY claimed_beat LIMIT 1000000) AS found
    ORDER BY found.id";

/// Reads the first builds of each submitter and machine, without a work that is long. The recursion jumps
/// from one submitter to the one before, so that a long queue of one costs nothing. It meets the end of each
/// queue, and not the rows of builds that have left it at its beginning.
pub(crate) const CANDIDATES: &str = "
    WITH RECURSIVE lanes AS (
        SELECT wanted.machine, first.submitter
        FROM unnest($1::text[]) AS wanted (machine), LATERAL (
            SELECT submitter FROM builds
            WHERE state = 0 AND machine = wanted.machine
            ORDER BY submitter DESC, priority, id DESC LIMIT 1) AS first
        UNION ALL
        SELECT lanes.machine, next.submitter
        FROM lanes, LATERAL (
            SELECT submitter FROM builds
            WHERE state = 0 AND machine = lanes.machine AND submitter < lanes.submitter
            ORDER BY submitter DESC, priority, id DESC LIMIT 1) AS next)
    SELECT found.id, found.epoch, lanes.submitter, found.priority,
        CASE WHEN length(found.requirements) < 1000 THEN found.requirements
            ELSE (found.requirements::jsonb - 'work')::text END,
        greatest(0, (extract(epoch FROM now() - found.submitted) * 1000)::bigint),
        NOT found.tried AND found.losses = 0
    FROM lanes, LATERAL (
        SELECT id, epoch, priority, requirements, submitted, tried, losses FROM builds
        WHERE state = 0 AND machine = lanes.machine AND submitter = lanes.submitter
            AND (not_before <= now() OR not_before > now() + interval '64 s')
            AND (sources IS NULL OR NOT EXISTS (
                SELECT FROM unnest(sources) AS needed (digest)
                WHERE NOT EXISTS (
                    SELECT FROM source_copies JOIN coordinators ON url = coordinator
                    WHERE source_copies.digest = needed.digest AND keeps_sources
                        AND seen > now() - interval '15 s')))
        ORDER BY priority DESC, id LIMIT $2) AS found";

/// Reads the use of submitters on the last days.
pub(crate) const USED: &str = "
    SELECT submitter, (now() AT TIME ZONE 'UTC')::date - day, sum(ms)::bigint FROM used
    WHERE submitter = ANY($1) AND day > (now() AT TIME ZONE 'UTC')::date - 7
    GROUP BY submitter, day";

/// Adds to the use of submitters on days. Each coordinator has rows of its own.
pub(crate) const CHARGE: &str = "
    INSERT INTO used (submitter, day, slot, ms)
    SELECT submitter, date '2000-01-01' + day, $4, ms
    FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS charge (submitter, day, ms)
    ORDER BY submitter, day
    ON CONFLICT (submitter, day, slot) DO UPDATE SET ms = used.ms + excluded.ms";

/// Claims builds for a host whose beat has not changed. A claim on trial may miss an end of the trial that is
/// committed at the same moment: then the build runs on the candidate, and a failure is repeated as always.
pub(crate) const CLAIM: &str = "
    WITH beat AS (
        UPDATE hosts SET beat = beat + 1 WHERE id = $1 AND beat = $2 AND NOT drained
            AND NOT EXISTS (
            SELECT FROM windows WHERE windows.host = hosts.id AND opens <= now()
                AND (now() < closes OR weekly IS NOT NULL))
        RETURNING id),
    wanted AS (
        SELECT * FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
            $8::bigint[]) AS pick (id, epoch, revision, charge_ms, content, trial)),
    unlocked AS (
        SELECT id FROM builds WHERE id = ANY($3) AND EXISTS (SELECT FROM beat)
        ORDER BY id FOR UPDATE SKIP LOCKED),
    claimed AS (
        UPDATE builds SET state = 1, epoch = builds.epoch + 1, host = $1, claimed = now(),
            revision = wanted.revision, charged_ms = wanted.charge_ms, claimed_beat = $2 + 1,
            trial = wanted.trial, tried = tried OR wanted.trial IS NOT NULL
        FROM wanted JOIN unlocked USING (id)
        WHERE builds.id = wanted.id AND builds.epoch = wanted.epoch AND state = 0
            AND (not_before <= now() OR not_before > now() + interval '64 s')
            AND NOT EXISTS (
                SELECT FROM machines WHERE name = builds.machine AND wanted.trial IS NULL
                    AND (wanted.revision <> machines.revision
                        OR wanted.content IS DISTINCT FROM
                            coalesce(machines.content, wanted.content)))
            AND (wanted.trial IS NULL OR NOT tried AND losses = 0 AND EXISTS (
                SELECT FROM trials JOIN machines ON name = trials.machine
                WHERE trials.machine = builds.machine AND number = wanted.trial AND promoted IS NULL
                    AND trials.revision = wanted.revision AND trials.revision > machines.revision
                    AND trials.content IS NOT DISTINCT FROM wanted.content))
        RETURNING builds.id, builds.epoch, requirements, canceled, submitter, builds.charged_ms,
            builds.trial, builds.revision),
    noted AS (
        INSERT INTO trial_runs (build, trial, revision, epoch, host)
        SELECT id, trial, revision, epoch, $1 FROM claimed WHERE trial IS NOT NULL)
    SELECT id, epoch, requirements, canceled, CASE WHEN trial IS NOT NULL THEN revision END, submitter,
        (now() AT TIME ZONE 'UTC')::date - date '2000-01-01', charged_ms
    FROM claimed
    UNION ALL
    SELECT NULL, (SELECT count(*) FROM hosts WHERE id = $1), NULL, NULL, NULL, NULL, NULL, NULL
    WHERE NOT EXISTS (SELECT FROM beat)";

/// Records a result, if its lease is the newest of the build and belongs to the host. Returns the charge.
/// `$5` is true if the files of the build go into the object store. `$6` is true for an outcome that is a result
/// on trial as well; otherwise only that of a canceled build is one. `$7` is the message, and the rules for
/// notifications `$8` are to weigh the end.
pub(crate) const FINISH: &str = "
    WITH gone AS (
        DELETE FROM builds
        WHERE id = $2 AND epoch = $3 AND host = $1 AND (trial IS NULL OR canceled OR $6) RETURNING *),
    kept AS (
        INSERT INTO finished (id, submitter, machine, requirements, submitted, epoch, host, losses,
            revision, outcome, is_reported, target, project, priority, claimed, message)
        SELECT id, submitter, machine, requirements, submitted, epoch, host, losses, revision,
            CASE WHEN trial IS NULL OR $6 THEN $4 ELSE 'abort' END, true, target, project, priority, claimed,
            $7
        FROM gone),
    archived AS (
        INSERT INTO uploads (build, epoch, host) SELECT id, epoch, host FROM gone WHERE $5),
    told AS (
        INSERT INTO notify_ends (rule, build, canceled)
        SELECT rule, id, canceled FROM gone, unnest($8::text[]) AS rule)
    SELECT submitter, (now() AT TIME ZONE 'UTC')::date - date '2000-01-01',
        CASE WHEN state = 1
            THEN greatest(0, (extract(epoch FROM now() - claimed) * 1000)::bigint) - charged_ms
            ELSE 0 END
    FROM gone";

/// Reads if the result of a lease is recorded, or its failure on trial.
pub(crate) const IS_FINISHED: &str = "
    SELECT FROM finished WHERE id = $2 AND epoch = $3 AND host = $1 AND is_reported
    UNION ALL
    SELECT FROM trial_runs WHERE build = $2 AND epoch = $3 AND host = $1 AND failure IS NOT NULL";

/// Reads if a lease was given back already, or has failed on trial.
pub(crate) const IS_RELEASED: &str = "
    SELECT FROM builds WHERE id = $2 AND epoch = $3 AND host = $1 AND state = 0
    UNION ALL
    SELECT FROM trial_runs WHERE build = $2 AND epoch = $3 AND host = $1 AND failure IS NOT NULL";

/// Returns a statement that takes the leases in `lost` from a host. A build that was lost too often, or is
/// canceled, gets its result. `$losses_max` is the parameter with the largest number of losses, and `$rules`
/// that with the rules for notifications.
macro_rules! take_leases {
    ($lost:literal, $losses_max:literal, $is_released:literal, $rules:literal) => {
        concat!(
            "
    WITH ",
            $lost,
            ",
    noted AS (
        INSERT INTO lost_attempts (build, epoch, host, claimed, is_released)
        SELECT id, epoch, host, claimed, ",
            $is_released,
            " FROM lost ON CONFLICT DO NOTHING),
    back AS (
        UPDATE builds SET state = 0, losses = losses + 1,
            not_before = now() + interval '1 s' * power(2, least(losses, 6))
        WHERE id IN (SELECT id FROM lost) AND NOT canceled AND losses + 1 < ",
            $losses_max,
            "
        RETURNING id, epoch),
    gone AS (
        DELETE FROM builds
        WHERE id IN (SELECT id FROM lost) AND (canceled OR losses + 1 >= ",
            $losses_max,
            ") RETURNING *),
    told AS (
        INSERT INTO notify_ends (rule, build, canceled)
        SELECT rule, id, canceled FROM gone, unnest(",
            $rules,
            "::text[]) AS rule),
    kept AS (
        INSERT INTO finished (id, submitter, machine, requirements, submitted, epoch, host, losses,
            revision, outcome, is_reported, target, project, priority, claimed, message)
        SELECT id, submitter, machine, requirements, submitted, epoch, host, losses + 1, revision,
            CASE WHEN canceled THEN 'abort' ELSE 'abnormal' END, false, target, project, priority, claimed,
            CASE WHEN NOT canceled THEN format('%s attempts lost their hosts or guests', losses + 1) END
        FROM gone)
    SELECT id, epoch FROM back UNION ALL SELECT id, epoch FROM gone"
        )
    };
}

/// Takes one lease from a host. One on trial is taken by [`FAIL_ON_TRIAL`].
pub(crate) const RELEASE: &str = take_leases!(
    "lost AS (
        SELECT id, epoch, host, claimed FROM builds
        WHERE id = $2 AND epoch = $3 AND host = $1 AND state = 1 AND (trial IS NULL OR canceled)
        FOR UPDATE)",
    "$4",
    "true",
    "$5"
);

/// Takes one lease from a host that has started no guest, which is no loss. The pause doubles with each claim.
pub(crate) const GIVE_BACK: &str = "
    WITH unused AS (
        SELECT id, canceled, trial FROM builds
        WHERE id = $2 AND epoch = $3 AND host = $1 AND state = 1 FOR UPDATE),
    untried AS (
        DELETE FROM trial_runs WHERE build IN (SELECT id FROM unused WHERE trial IS NOT NULL)),
    back AS (
        UPDATE builds SET state = 0, not_before = now() + interval '1 s' * power(2, least(epoch - 1, 6)),
            tried = tried AND trial IS NULL, trial = NULL
        WHERE id IN (SELECT id FROM unused WHERE NOT canceled) RETURNING id),
    gone AS (
        DELETE FROM builds WHERE id IN (SELECT id FROM unused WHERE canceled) RETURNING *),
    told AS (
        INSERT INTO notify_ends (rule, build, canceled)
        SELECT rule, id, true FROM gone, unnest($4::text[]) AS rule),
    kept AS (
        INSERT INTO finished (id, submitter, machine, requirements, submitted, epoch, host, losses,
            revision, outcome, is_reported, target, project, priority, claimed)
        SELECT id, submitter, machine, requirements, submitted, epoch, host, losses, revision, 'abort', false,
            target, project, priority, claimed
        FROM gone)
    SELECT id FROM back UNION ALL SELECT id FROM gone";

/// Takes all leases from a host whose beat has not changed.
pub(crate) const RESCUE: &str = take_leases!(
    "beat AS (
        UPDATE hosts SET beat = beat + 1 WHERE id = $1 AND beat = $2 RETURNING id),
    lost AS (
        SELECT id, epoch, host, claimed FROM builds
        WHERE host = $1 AND state = 1 AND EXISTS (SELECT FROM beat) ORDER BY id FOR UPDATE)",
    "$3",
    "false",
    "$4"
);

/// Reads all hosts without their offers. Their leases are counted from the claim at a beat on, if that was
/// found at a beat that is not newer than the present one.
pub(crate) const HOSTS: &str = "
    SELECT id, hosts.beat,
        drained OR EXISTS (
            SELECT FROM windows WHERE windows.host = hosts.id AND opens <= now()
                AND (now() < closes OR weekly IS NOT NULL)),
        version, orders, leases, oldest
    FROM hosts LEFT JOIN unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS floor (host, beat, claim)
        ON floor.host = hosts.id,
    LATERAL (
        SELECT count(*) AS leases, min(claimed_beat) AS oldest FROM builds
        WHERE state = 1 AND host = hosts.id
            AND claimed_beat >= CASE WHEN floor.beat <= hosts.beat THEN floor.claim ELSE 0 END) AS leased
    ORDER BY id";

/// Reads the parts of hosts that seldom change.
pub(crate) const DETAILS: &str = "
    SELECT id, name, version, key_hash,
        coalesce((SELECT offer FROM offers WHERE host = hosts.id), '{}')
    FROM hosts WHERE id = ANY($1::bigint[])";

/// Makes a revision current, if it is newer. One without a content gets it.
pub(crate) const PUBLISH: &str = "
    INSERT INTO machines (name, revision, content) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET
        revision = greatest(machines.revision, excluded.revision),
        content = CASE
            WHEN excluded.revision > machines.revision THEN excluded.content
            WHEN excluded.revision = machines.revision
                THEN coalesce(machines.content, excluded.content)
            ELSE machines.content END
    RETURNING name, revision, content";

/// Sets or resets the drain of a host.
pub(crate) const DRAIN: &str = "UPDATE hosts SET drained = $2, orders = orders + 1 WHERE id = $1";

/// Reads a build.
pub(crate) const SHOW: &str = "
    SELECT requirements, epoch, CASE WHEN state = 1 THEN host END, NULL AS outcome
    FROM builds WHERE id = $1
    UNION ALL
    SELECT requirements, epoch, NULL, outcome FROM finished WHERE id = $1";

/// Reads all published revisions.
pub(crate) const PUBLISHED: &str = "SELECT name, revision, content FROM machines";

/// Adds a transfer, and deletes those that coordinators have left behind which died.
pub(crate) const OPEN_TRANSFER: &str = "
    WITH old AS (DELETE FROM transfers WHERE opened < now() - interval '1 hour')
    INSERT INTO transfers (id, host, coordinator, wanted) VALUES ($1, $2, $3, $4)";

/// Deletes a transfer.
pub(crate) const CLOSE_TRANSFER: &str = "DELETE FROM transfers WHERE id = $1";

/// Reads the transfers that coordinators wait for.
pub(crate) const TRANSFERS: &str = "
    SELECT id, host, coordinator, wanted FROM transfers
    WHERE opened > now() - interval '1 min' ORDER BY opened, id";

/// Reads the lease under which a build runs, or has left its result.
pub(crate) const SITE: &str = "
    SELECT host, epoch, NULL AS outcome FROM builds WHERE id = $1 AND state = 1
    UNION ALL
    SELECT host, epoch, outcome FROM finished WHERE id = $1";

/// Reads the names of the partitions, and the month.
pub(crate) const PARTITION_NAMES: &str = "
    SELECT relname::text, to_char(now(), 'YYYY_MM')
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'finished'::regclass ORDER BY relname";

/// Deletes some old idempotency keys.
pub(crate) const FORGET_SUBMISSIONS: &str = "
    DELETE FROM submissions WHERE key IN (
        SELECT key FROM submissions
        WHERE submitted < date_trunc('month', now()) - make_interval(months => $1) LIMIT $2)";

/// Deletes some old lost attempts.
pub(crate) const FORGET_LOST: &str = "
    DELETE FROM lost_attempts WHERE (build, epoch) IN (
        SELECT build, epoch FROM lost_attempts
        WHERE ended < date_trunc('month', now()) - make_interval(months => $1) LIMIT $2)";

/// All statements.
pub const ALL: [(&str, &str); 112] = [
    ("placement_needs", PLACEMENT_NEEDS),
    ("revisions", REVISIONS),
    ("begin_trial", BEGIN_TRIAL),
    ("end_trial", END_TRIAL),
    ("is_ended", IS_ENDED),
    ("trials", TRIALS),
    ("fail_on_trial", FAIL_ON_TRIAL),
    ("run_on_trial", RUN_ON_TRIAL),
    ("forget_runs", FORGET_RUNS),
    ("usuals", USUALS),
    ("add_window", ADD_WINDOW),
    ("remove_window", REMOVE_WINDOW),
    ("move_window", MOVE_WINDOW),
    ("end_window", END_WINDOW),
    ("windows", WINDOWS),
    ("windows_of", WINDOWS_OF),
    ("now", NOW),
    ("copies", COPIES),
    ("known_sources", KNOWN_SOURCES),
    ("holders", HOLDERS),
    ("keep", KEEP),
    ("lose", LOSE),
    ("expire", EXPIRE),
    ("discard", DISCARD),
    ("kept", KEPT),
    ("register", REGISTER),
    ("attend", ATTEND),
    ("coordinators", COORDINATORS),
    ("seen_coordinators", SEEN_COORDINATORS),
    ("coordinator", COORDINATOR),
    ("count_sources", COUNT_SOURCES),
    ("schedules", SCHEDULES),
    ("add_schedule", ADD_SCHEDULE),
    ("remove_schedule", REMOVE_SCHEDULE),
    ("pause_schedule", PAUSE_SCHEDULE),
    ("run_schedule", RUN_SCHEDULE),
    ("schedule_views", SCHEDULE_VIEWS),
    ("projects", PROJECTS),
    ("take_uploads", TAKE_UPLOADS),
    ("defer_upload", DEFER_UPLOAD),
    ("archive", ARCHIVE),
    ("is_archived", IS_ARCHIVED),
    ("archive_of", ARCHIVE_OF),
    ("uploads", UPLOADS),
    ("forget_archives", FORGET_ARCHIVES),
    ("forget_uploads", FORGET_UPLOADS),
    ("add_rules", ADD_RULES),
    ("ends", ENDS),
    ("package_states", PACKAGE_STATES),
    ("weigh", WEIGH),
    ("told_problems", TOLD_PROBLEMS),
    ("tell_problems", TELL_PROBLEMS),
    ("give_up_notifications", GIVE_UP_NOTIFICATIONS),
    ("take_notification", TAKE_NOTIFICATION),
    ("defer_notification", DEFER_NOTIFICATION),
    ("settle_notification", SETTLE_NOTIFICATION),
    ("forget_settled", FORGET_SETTLED),
    ("forget_notifications", FORGET_NOTIFICATIONS),
    ("notification_counts", NOTIFICATION_COUNTS),
    ("sourceless", SOURCELESS),
    ("absent_coordinators", ABSENT_COORDINATORS),
    ("partition_names", PARTITION_NAMES),
    ("forget_submissions", FORGET_SUBMISSIONS),
    ("forget_lost", FORGET_LOST),
    ("open_session", OPEN_SESSION),
    ("session", SESSION),
    ("touch_session", TOUCH_SESSION),
    ("close_session", CLOSE_SESSION),
    ("add_token", ADD_TOKEN),
    ("revoke_token", REVOKE_TOKEN),
    ("tokens", TOKENS),
    ("token", TOKEN),
    ("lost", LOST),
    ("usual", USUAL),
    ("queue", QUEUE),
    ("host_states", HOST_STATES),
    ("sites", SITES),
    ("failing", FAILING),
    ("open_transfer", OPEN_TRANSFER),
    ("close_transfer", CLOSE_TRANSFER),
    ("transfers", TRANSFERS),
    ("site", SITE),
    ("host_of_name", HOST_OF_NAME),
    ("host_name", HOST_NAME),
    ("published", PUBLISHED),
    ("submitted", SUBMITTED),
    ("submit", SUBMIT),
    ("cancel_queued", CANCEL_QUEUED),
    ("cancel_leased", CANCEL_LEASED),
    ("outcome", OUTCOME),
    ("beats", BEATS),
    ("leases", LEASES),
    ("candidates", CANDIDATES),
    ("used", USED),
    ("claim", CLAIM),
    ("finish", FINISH),
    ("charge", CHARGE),
    ("is_finished", IS_FINISHED),
    ("is_released", IS_RELEASED),
    ("release", RELEASE),
    ("give_back", GIVE_BACK),
    ("rescue", RESCUE),
    ("hosts", HOSTS),
    ("details", DETAILS),
    ("publish", PUBLISH),
    ("drain", DRAIN),
    ("show", SHOW),
    ("enrol", ENROL),
    ("host_of_key", HOST_OF_KEY),
    ("invite", INVITE),
    ("revoke", REVOKE),
    ("partitions", crate::schema::PARTITIONS),
];
