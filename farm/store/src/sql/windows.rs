//! The statements about maintenance windows.

/// Reads what placements need beside the queue: durations, if a window of a host begins within a day, and
/// vacancies, if a trial is open.
pub(crate) const PLACEMENT_NEEDS: &str = "
    SELECT EXISTS (
            SELECT FROM windows WHERE opens > now() AND opens < now() + interval '1 day'),
        EXISTS (SELECT FROM trials WHERE promoted IS NULL)";

/// Reads the time that such builds took lately, for builds in the queue.
pub(crate) const USUALS: &str = "
    SELECT id, (
        SELECT div(sum(ms), count(*))::bigint FROM (
            SELECT greatest(0, (extract(epoch FROM finished - claimed) * 1000)::bigint) AS ms
            FROM finished
            WHERE target = builds.target AND machine = builds.machine
                AND outcome IN ('success', 'warning')
            ORDER BY id DESC LIMIT 5) AS last)
    FROM builds WHERE id = ANY($1::bigint[]) AND target IS NOT NULL";

/// Adds a window to a host, unless it has one with the same occurrence. Windows are an order to the host.
pub(crate) const ADD_WINDOW: &str = "
    WITH ordered AS (
        UPDATE hosts SET orders = orders + 1 WHERE id = $1 RETURNING id),
    occurrence AS (
        SELECT timestamptz 'epoch' + $2::bigint * interval '1 ms' AS opens,
            timestamptz 'epoch' + $3::bigint * interval '1 ms' AS closes),
    same AS (
        UPDATE windows SET weekly = $4, reason = $5
        WHERE id = (
            SELECT min(windows.id) FROM windows JOIN occurrence USING (opens, closes)
            WHERE windows.host = $1)
        RETURNING id),
    added AS (
        INSERT INTO windows (id, host, opens, closes, weekly, reason)
        SELECT nextval('window_ids'), ordered.id, opens, closes, $4, $5 FROM ordered, occurrence
        WHERE NOT EXISTS (SELECT FROM same)
        RETURNING id)
    SELECT id FROM same UNION ALL SELECT id FROM added";

/// Takes a window of a host away.
pub(crate) const REMOVE_WINDOW: &str = "
    WITH gone AS (DELETE FROM windows WHERE id = $2 AND host = $1)
    UPDATE hosts SET orders = orders + 1 WHERE id = $1";

/// Replaces an occurrence of a window that is over.
pub(crate) const MOVE_WINDOW: &str = "
    UPDATE windows SET opens = timestamptz 'epoch' + $4::bigint * interval '1 ms',
        closes = timestamptz 'epoch' + $5::bigint * interval '1 ms'
    WHERE id = $1 AND opens = timestamptz 'epoch' + $2::bigint * interval '1 ms'
        AND closes = timestamptz 'epoch' + $3::bigint * interval '1 ms'";

/// Deletes a window whose occurrence is over.
pub(crate) const END_WINDOW: &str = "
    DELETE FROM windows
    WHERE id = $1 AND opens = timestamptz 'epoch' + $2::bigint * interval '1 ms'
        AND closes = timestamptz 'epoch' + $3::bigint * interval '1 ms'";

/// Reads the windows of hosts, the next ones first. A farm has few.
pub(crate) const WINDOWS: &str = "
    SELECT windows.id, hosts.name, (extract(epoch FROM opens) * 1000)::bigint,
        (extract(epoch FROM closes) * 1000)::bigint, weekly, reason
    FROM windows JOIN hosts ON hosts.id = windows.host ORDER BY opens, windows.id";

/// Reads the windows of some hosts.
pub(crate) const WINDOWS_OF: &str = "
    SELECT windows.id, hosts.name, (extract(epoch FROM opens) * 1000)::bigint,
        (extract(epoch FROM closes) * 1000)::bigint, weekly, reason
    FROM windows JOIN hosts ON hosts.id = windows.host WHERE hosts.name = ANY($1)
    ORDER BY opens, windows.id";

/// Reads the time.
pub(crate) const NOW: &str = "SELECT (extract(epoch FROM now()) * 1000)::bigint";
