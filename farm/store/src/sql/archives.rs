//! The statements about the files of builds on their way into the object store.

/// Takes uploads that are due. No pause is longer than 20 minutes: later ones are from before the clock was
/// set back.
pub(crate) const TAKE_UPLOADS: &str = "
    WITH due AS (
        SELECT build FROM uploads WHERE due <= now() ORDER BY due, build LIMIT $1
        FOR UPDATE SKIP LOCKED),
    ahead AS (
        SELECT build FROM uploads WHERE due > now() + interval '20 min' ORDER BY due, build
        LIMIT (SELECT $1 - count(*) FROM due) FOR UPDATE SKIP LOCKED)
    UPDATE uploads SET attempts = attempts + 1, due = now() + interval '1 ms' * $2::bigint
    FROM (SELECT build FROM due UNION ALL SELECT build FROM ahead) AS wanted
    WHERE uploads.build = wanted.build
    RETURNING uploads.build, epoch, host, attempts, (extract(epoch FROM ended) * 1000)::bigint";

/// Makes an upload due after a time, if no later attempt has begun.
pub(crate) const DEFER_UPLOAD: &str = "
    UPDATE uploads SET due = now() + interval '1 ms' * $4::bigint
    WHERE build = $1 AND epoch = $2 AND attempts = $3";

/// Records the archive of a build with an upload.
pub(crate) const ARCHIVE: &str = "
    WITH gone AS (DELETE FROM uploads WHERE build = $1 AND epoch = $2 RETURNING ended)
    INSERT INTO archives (build, epoch, ended, files) SELECT $1, $2, ended, $3 FROM gone";

/// Reads if the files of a lease are archived, or lost.
pub(crate) const IS_ARCHIVED: &str = "SELECT FROM archives WHERE build = $1 AND epoch = $2";

/// Reads the archive of a build, or that its files wait for the object store.
pub(crate) const ARCHIVE_OF: &str = "
    SELECT build, true, files FROM archives WHERE build = $1
    UNION ALL
    SELECT build, false, NULL FROM uploads WHERE build = $1";

/// Reads the number of uploads, and the age of the oldest one.
pub(crate) const UPLOADS: &str = "
    SELECT count(*), coalesce((extract(epoch FROM now() - min(ended)))::bigint, 0) FROM uploads";

/// Deletes some old archives.
pub(crate) const FORGET_ARCHIVES: &str = "
    DELETE FROM archives WHERE build IN (
        SELECT build FROM archives
        WHERE ended < date_trunc('month', now()) - make_interval(months => $1) LIMIT $2)";

/// Deletes some uploads of builds that are forgotten.
pub(crate) const FORGET_UPLOADS: &str = "
    DELETE FROM uploads WHERE build IN (
        SELECT build FROM uploads
        WHERE ended < date_trunc('month', now()) - make_interval(months => $1) LIMIT $2)";
