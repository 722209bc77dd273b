//! The statements about schedules, and the list of projects.

/// Reads the schedules that are not paused, and the time; one row without a schedule if all are paused.
pub(crate) const SCHEDULES: &str = "
    SELECT clock.ms, name, timing, added, since
    FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint AS ms) AS clock
    LEFT JOIN schedules ON NOT paused ORDER BY name";

/// Adds a schedule unless one of its sources is not known, and returns what it did. An equal one stays as it
/// is; the pause and the last build of one that is replaced stay. The sources are noted as needed.
pub(crate) const ADD_SCHEDULE: &str = "
    WITH locked AS (
        SELECT digest FROM sources WHERE digest = ANY($12::text[]) ORDER BY digest FOR NO KEY UPDATE),
    needed AS (
        UPDATE sources SET used = now() FROM locked WHERE sources.digest = locked.digest
        RETURNING sources.digest),
    known AS (
        SELECT (timing, coalesces, submitter, priority, machine, requirements)
                = ($2, $3, $4, $5, $6, $7)
            AND target IS NOT DISTINCT FROM $8 AND project IS NOT DISTINCT FROM $9 AS is_equal
        FROM schedules WHERE name = $1 FOR UPDATE),
    written AS (
        INSERT INTO schedules (name, timing, coalesces, submitter, priority, machine, requirements,
            target, project, added, since, sources)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, clock.ms, clock.ms, nullif($12::text[], '{}')
        FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint AS ms) AS clock
        WHERE CASE WHEN EXISTS (SELECT FROM known) THEN $10 AND NOT (SELECT is_equal FROM known)
            ELSE (SELECT count(*) FROM schedules) < $11 END
            AND (SELECT count(*) FROM needed) = cardinality($12::text[])
        ON CONFLICT (name) DO UPDATE SET timing = excluded.timing, coalesces = excluded.coalesces,
            submitter = excluded.submitter, priority = excluded.priority, machine = excluded.machine,
            requirements = excluded.requirements, target = excluded.target, project = excluded.project,
            added = excluded.added, since = excluded.since, last_at = NULL, last_due = NULL,
            last_result = NULL, sources = excluded.sources
        WHERE $10
        RETURNING 1)
    SELECT CASE
        WHEN EXISTS (SELECT FROM written)
            THEN CASE WHEN EXISTS (SELECT FROM known) THEN 'replaced' ELSE 'new' END
        WHEN (SELECT is_equal FROM known) THEN 'unchanged'
        WHEN NOT $10 AND EXISTS (SELECT FROM known) THEN 'exists'
        WHEN NOT EXISTS (SELECT FROM known) AND (SELECT count(*) FROM schedules) >= $11 THEN 'full'
        WHEN (SELECT count(*) FROM needed) < cardinality($12::text[]) THEN 'missing'
        ELSE 'exists' END";

/// Deletes a schedule.
pub(crate) const REMOVE_SCHEDULE: &str = "DELETE FROM schedules WHERE name = $1";

/// Pauses a schedule or ends its pause, whose times are done.
pub(crate) const PAUSE_SCHEDULE: &str = "
    UPDATE schedules SET paused = $2, since = CASE WHEN paused AND NOT $2
        THEN greatest(since, (extract(epoch FROM now()) * 1000)::bigint) ELSE since END
    WHERE name = $1";

/// Runs a schedule: at once, or for a time if it is as it was read. Another coordinator that runs it
/// meanwhile has changed the mark, so that the row is no longer found.
pub(crate) const RUN_SCHEDULE: &str = "
    WITH held AS (
        SELECT * FROM schedules
        WHERE name = $1 AND ($3::text IS NULL
            OR timing = $3 AND added = $4::bigint AND since = $5::bigint AND NOT paused)
        FOR UPDATE),
    known AS (SELECT build FROM submissions WHERE key = $2),
    unfinished AS (
        SELECT builds.id FROM held JOIN builds ON builds.id = held.last_build
        WHERE held.coalesces AND NOT EXISTS (SELECT FROM known)),
    added AS (
        INSERT INTO submissions (key, build) SELECT $2, nextval('build_ids') FROM held
        WHERE NOT EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM unfinished)
        ON CONFLICT DO NOTHING RETURNING build),
    submitted AS (
        INSERT INTO builds
            (id, submitter, priority, machine, requirements, submitted, target, project, sources)
        SELECT build, submitter, priority, machine, requirements, now(), target, project, sources
        FROM added, held RETURNING id)
    UPDATE schedules SET since = coalesce($7::bigint, schedules.since),
        last_at = (extract(epoch FROM now()) * 1000)::bigint, last_due = $6,
        last_result = CASE WHEN EXISTS (SELECT FROM unfinished) THEN 'attached' ELSE 'submitted' END,
        last_build = coalesce((SELECT id FROM submitted), schedules.last_build),
        shown_build = coalesce((SELECT id FROM submitted), (SELECT build FROM known),
            (SELECT id FROM unfinished))
    FROM held WHERE schedules.name = held.name
    RETURNING schedules.shown_build, schedules.last_result";

/// Reads the schedules for clients, or one of them.
pub(crate) const SCHEDULE_VIEWS: &str = "
    SELECT name, timing, coalesces, submitter, priority, requirements, target, project, paused, added,
        since, last_at, last_due, last_result, shown_build, (extract(epoch FROM now()) * 1000)::bigint
    FROM schedules WHERE $1::text IS NULL OR name = $1 ORDER BY name";

/// Reads the projects: the number of unfinished builds, the last build with an outcome, and the last good
/// one among the last thousand. The recursion jumps from one name to the next in the index.
pub(crate) const PROJECTS: &str = "
    WITH RECURSIVE results AS (
        (SELECT project FROM finished WHERE project IS NOT NULL ORDER BY project LIMIT 1)
        UNION ALL
        SELECT (SELECT project FROM finished WHERE project > results.project
            ORDER BY project LIMIT 1)
        FROM results WHERE results.project IS NOT NULL),
    queue AS (
        SELECT project, count(*) AS unfinished FROM builds WHERE project IS NOT NULL GROUP BY project),
    names AS (
        SELECT project FROM results WHERE project IS NOT NULL
        UNION SELECT project FROM queue
        UNION SELECT project FROM schedules WHERE project IS NOT NULL)
    SELECT names.project, coalesce(queue.unfinished, 0),
        (SELECT id FROM finished WHERE finished.project = names.project ORDER BY id DESC LIMIT 1),
        (SELECT id FROM (
                SELECT id, outcome FROM finished WHERE finished.project = names.project
                ORDER BY id DESC LIMIT 1000) AS last
            WHERE outcome IN ('success', 'warning') ORDER BY id DESC LIMIT 1),
        ARRAY(SELECT name FROM schedules WHERE schedules.project = names.project ORDER BY name)
    FROM names LEFT JOIN queue ON queue.project = names.project ORDER BY names.project";
