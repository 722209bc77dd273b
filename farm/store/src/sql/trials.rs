//! The statements about trials of revisions. All that change one lock the row of the machine first.

/// Reads the published revisions, each with the last trial of its machine.
pub(crate) const REVISIONS: &str = "
    SELECT name, machines.revision, machines.content, number, trials.revision, trials.content, terms,
        promoted, reason
    FROM machines LEFT JOIN trials ON machine = name";

/// Puts a revision on trial that is newer than the published one. A trial of the same that is open goes on.
pub(crate) const BEGIN_TRIAL: &str = "
    WITH locked AS (
        SELECT name FROM machines WHERE name = $1 AND revision < $2 FOR UPDATE),
    same AS (
        SELECT number FROM trials
        WHERE machine = $1 AND promoted IS NULL AND revision = $2 AND terms = $4
            AND content IS NOT DISTINCT FROM $3),
    begun AS (
        INSERT INTO trials (machine, number, revision, content, terms, began)
        SELECT name, nextval('trial_numbers'), $2, $3, $4, now() FROM locked
        WHERE NOT EXISTS (SELECT FROM same)
        ON CONFLICT (machine) DO UPDATE SET number = excluded.number, revision = excluded.revision,
            content = excluded.content, terms = excluded.terms, began = excluded.began,
            promoted = NULL, reason = NULL, ended = NULL
        RETURNING number)
    SELECT number FROM same UNION ALL SELECT number FROM begun";

/// Ends a trial that is open. A promotion publishes the revision, unless a newer one is published.
pub(crate) const END_TRIAL: &str = "
    WITH locked AS (
        SELECT name, revision, content FROM machines WHERE name = $1 FOR UPDATE),
    ended AS (
        UPDATE trials SET promoted = $3, reason = $4, ended = now() FROM locked
        WHERE machine = name AND number = $2 AND promoted IS NULL
            AND (NOT $3 OR locked.revision < trials.revision
                OR locked.revision = trials.revision
                    AND locked.content IS NOT DISTINCT FROM trials.content)
        RETURNING machine, trials.revision, trials.content),
    published AS (
        UPDATE machines SET revision = ended.revision, content = ended.content FROM ended
        WHERE $3 AND name = machine)
    SELECT machine FROM ended";

/// Reads if a trial has ended with a verdict.
pub(crate) const IS_ENDED: &str = "
    SELECT FROM trials WHERE machine = $1 AND number = $2 AND promoted = $3";

/// Reads the trials that are open, or the last one of each machine if `$1` is true, with a row for each build
/// that ran on the candidate. Those of silent hosts, which say nothing, are left out.
pub(crate) const TRIALS: &str = "
    SELECT name, machines.revision, machines.content, number, trials.revision, trials.content, terms,
        promoted, reason, (extract(epoch FROM began) * 1000)::bigint,
        (extract(epoch FROM ended) * 1000)::bigint, run.build, run.failure, run.target, run.outcome
    FROM trials JOIN machines ON name = machine
    LEFT JOIN LATERAL (
        SELECT build, failure, coalesce(builds.target, finished.target) AS target, outcome
        FROM trial_runs
        LEFT JOIN builds ON builds.id = build
        LEFT JOIN finished ON finished.id = build
        WHERE trial_runs.trial = number AND (
            failure IS NOT NULL OR finished.epoch = trial_runs.epoch
            OR builds.epoch = trial_runs.epoch AND state = 1)) AS run ON true
    WHERE $1 OR promoted IS NULL
    ORDER BY number, run.build";

/// Returns a build to the queue that has failed on trial: all is as before, but that it was on trial. The charge is
/// given back.
pub(crate) const FAIL_ON_TRIAL: &str = "
    WITH failed AS (
        SELECT id, submitter, state, charged_ms FROM builds
        WHERE id = $2 AND epoch = $3 AND host = $1 AND trial IS NOT NULL AND NOT canceled FOR UPDATE),
    noted AS (
        UPDATE trial_runs SET failure = $4 FROM failed WHERE build = failed.id),
    back AS (
        UPDATE builds SET state = 0, not_before = '-infinity', host = NULL, trial = NULL
        WHERE id IN (SELECT id FROM failed))
    SELECT submitter, (now() AT TIME ZONE 'UTC')::date - date '2000-01-01',
        CASE WHEN state = 1 THEN -charged_ms ELSE 0 END
    FROM failed";

/// Reads the run of a build on a candidate.
pub(crate) const RUN_ON_TRIAL: &str = "
    SELECT revision, epoch, failure FROM trial_runs WHERE build = $1";

/// Deletes some old runs.
pub(crate) const FORGET_RUNS: &str = "
    DELETE FROM trial_runs WHERE build IN (
        SELECT build FROM trial_runs
        WHERE began < date_trunc('month', now()) - make_interval(months => $1) LIMIT $2)";
