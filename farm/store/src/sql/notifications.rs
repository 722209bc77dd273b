//! The statements about notifications.

/// Adds rules, so that each has a version.
pub(crate) const ADD_RULES: &str = "
    INSERT INTO notify_rules (rule) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";

/// Reads the version of a rule, and the first ends of builds that it has not weighed.
pub(crate) const ENDS: &str = "
    SELECT version, number, build, canceled FROM notify_rules LEFT JOIN LATERAL (
        SELECT number, build, canceled FROM notify_ends
        WHERE notify_ends.rule = notify_rules.rule ORDER BY number LIMIT $2) AS ends ON true
    WHERE notify_rules.rule = $1 ORDER BY number";

/// Reads the states of packages on machines that a rule knows.
pub(crate) const PACKAGE_STATES: &str = "
    SELECT wanted.machine, wanted.package, state
    FROM unnest($2::text[], $3::text[]) AS wanted (machine, package)
        JOIN package_states USING (machine, package)
    WHERE rule = $1";

/// Forgets ends of builds, and records the new states of packages and what is told of them, if the version of
/// the rule is still this one.
pub(crate) const WEIGH: &str = "
    WITH turn AS (
        UPDATE notify_rules SET version = version + 1 WHERE rule = $1 AND version = $2
        RETURNING rule),
    gone AS (
        DELETE FROM notify_ends WHERE number = ANY($3::bigint[]) AND EXISTS (SELECT FROM turn)),
    known AS (
        INSERT INTO package_states (rule, machine, package, state)
        SELECT rule, machine, package, state
        FROM turn, unnest($4::text[], $5::text[], $6::text[]) AS new (machine, package, state)
        ON CONFLICT (rule, machine, package) DO UPDATE SET state = excluded.state),
    added AS (
        INSERT INTO notifications (rule, content) SELECT rule, content
        FROM turn, unnest($7::text[]) WITH ORDINALITY AS new (content, place) ORDER BY place)
    SELECT FROM turn";

/// Reads the problems of which the recipients of rules were told, with the versions of the rules.
pub(crate) const TOLD_PROBLEMS: &str = "
    SELECT notify_rules.rule, version, content
    FROM notify_rules LEFT JOIN told_problems USING (rule)
    WHERE notify_rules.rule = ANY($1::text[]) ORDER BY 1, problem, subject";

/// Records the problems that a recipient is told of now, and the ends of others, if the version of the rule is
/// still this one.
pub(crate) const TELL_PROBLEMS: &str = "
    WITH turn AS (
        UPDATE notify_rules SET version = version + 1 WHERE rule = $1 AND version = $2
        RETURNING rule),
    ended AS (
        DELETE FROM told_problems USING turn, unnest($3::text[], $4::text[]) AS over (problem, subject)
        WHERE told_problems.rule = turn.rule AND told_problems.problem = over.problem
            AND told_problems.subject = over.subject),
    begun AS (
        INSERT INTO told_problems (rule, problem, subject, content)
        SELECT rule, problem, subject, content
        FROM turn, unnest($5::text[], $6::text[], $7::text[]) AS new (problem, subject, content)),
    added AS (
        INSERT INTO notifications (rule, content) SELECT rule, content
        FROM turn, unnest($8::text[]) WITH ORDINALITY AS new (content, place) ORDER BY place)
    SELECT FROM turn";

/// Gives up the oldest notifications of a rule of which too many wait.
pub(crate) const GIVE_UP_NOTIFICATIONS: &str = "
    UPDATE notifications SET settled = now(), given_up = true,
        failure = 'too many notifications of this rule wait'
    WHERE number IN (
        SELECT number FROM notifications WHERE rule = $1 AND settled IS NULL
        ORDER BY number DESC OFFSET $2)";

/// Takes the oldest notification of a rule, unless another coordinator has it or its pause lasts. Times that
/// are later than any pause are from before the clock was set back.
pub(crate) const TAKE_NOTIFICATION: &str = "
    UPDATE notifications SET attempts = attempts + 1, due = now() + interval '1 ms' * $2::bigint
    WHERE number = (
            SELECT number FROM notifications WHERE rule = $1 AND settled IS NULL
            ORDER BY number LIMIT 1)
        AND settled IS NULL
        AND (due <= now() OR due > now() + interval '1 ms' * $2::bigint + interval '10 min')
    RETURNING number, id, content, attempts, failure,
        (extract(epoch FROM created) * 1000)::bigint, (extract(epoch FROM now()) * 1000)::bigint";

/// Notes the failure of an attempt, if no later one has begun.
pub(crate) const DEFER_NOTIFICATION: &str = "
    UPDATE notifications SET failure = $3, due = now() + interval '1 ms' * $4::bigint
    WHERE number = $1 AND attempts = $2 AND settled IS NULL";

/// Ends the attempts to deliver a notification.
pub(crate) const SETTLE_NOTIFICATION: &str = "
    UPDATE notifications SET settled = now(), given_up = $2, failure = $3
    WHERE number = $1 AND settled IS NULL";

/// Forgets the settled notifications of a rule, except some.
pub(crate) const FORGET_SETTLED: &str = "
    DELETE FROM notifications WHERE number IN (
        SELECT number FROM notifications WHERE rule = $1 AND settled IS NOT NULL
        ORDER BY number DESC OFFSET $2)";

/// Forgets what was recorded long ago for rules that no coordinator has any more.
pub(crate) const FORGET_NOTIFICATIONS: &str = "
    WITH ends AS (DELETE FROM notify_ends WHERE ended < now() - interval '1000 hours')
    DELETE FROM notifications WHERE settled IS NULL AND created < now() - interval '1000 hours'";

/// Counts the notifications of each rule.
pub(crate) const NOTIFICATION_COUNTS: &str = "
    SELECT rule, (extract(epoch FROM max(settled) FILTER (WHERE NOT given_up)) * 1000)::bigint,
        count(*) FILTER (WHERE settled IS NULL), count(*) FILTER (WHERE given_up),
        coalesce(
            (SELECT failure FROM notifications AS open
                WHERE open.rule = all_of.rule AND settled IS NULL ORDER BY number LIMIT 1),
            (SELECT failure FROM notifications AS last
                WHERE last.rule = all_of.rule ORDER BY number DESC LIMIT 1), '')
    FROM notifications AS all_of GROUP BY rule ORDER BY rule";

/// Counts the builds that wait for sources which no coordinator has that is alive, and reads the first.
pub(crate) const SOURCELESS: &str = "
    SELECT count(*), min(id) FROM builds
    WHERE state = 0 AND sources IS NOT NULL AND EXISTS (
        SELECT FROM unnest(sources) AS needed (digest)
        WHERE NOT EXISTS (
            SELECT FROM source_copies JOIN coordinators ON url = coordinator
            WHERE source_copies.digest = needed.digest AND keeps_sources
                AND seen > now() - interval '15 s'))";

/// Reads the coordinators that were not seen lately.
pub(crate) const ABSENT_COORDINATORS: &str = "
    SELECT url, (extract(epoch FROM seen) * 1000)::bigint FROM coordinators
    WHERE seen < now() - interval '15 s' ORDER BY url";
