//! The statements about what clients see of builds.

/// Reads the lost attempts of a build.
pub(crate) const LOST: &str = "
    SELECT epoch, hosts.name, (extract(epoch FROM claimed) * 1000)::bigint,
        (extract(epoch FROM ended) * 1000)::bigint, is_released
    FROM lost_attempts LEFT JOIN hosts ON hosts.id = host WHERE build = $1 ORDER BY epoch";

/// Reads the seconds that the last good builds of a target on a machine took.
pub(crate) const USUAL: &str = "
    SELECT avg(seconds)::bigint FROM (
        SELECT extract(epoch FROM finished - claimed) AS seconds FROM finished
        WHERE target = $1 AND machine = $2 AND outcome IN ('success', 'warning')
        ORDER BY id DESC LIMIT 5) AS last";

/// Reads the size of the queue.
pub(crate) const QUEUE: &str = "
    SELECT (extract(epoch FROM now()) * 1000)::bigint,
        (SELECT count(*) FROM builds WHERE state = 0),
        (SELECT (extract(epoch FROM submitted) * 1000)::bigint FROM builds WHERE state = 0
            ORDER BY id LIMIT 1),
        (SELECT count(*) FROM builds WHERE state = 1)";

/// Reads the last failed builds whose target has no newer good one on the same machine.
pub(crate) const FAILING: &str = "
    SELECT DISTINCT ON (failed.target, failed.machine) failed.id FROM (
        SELECT id, target, machine FROM finished
        WHERE outcome IN ('error', 'abnormal') AND target IS NOT NULL
        ORDER BY id DESC LIMIT 200) AS failed
    LEFT JOIN LATERAL (
        SELECT id FROM finished
        WHERE target = failed.target AND machine = failed.machine AND id > failed.id
            AND outcome IN ('success', 'warning') LIMIT 1) AS good ON true
    WHERE good.id IS NULL
    ORDER BY failed.target, failed.machine, failed.id DESC";
