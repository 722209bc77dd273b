//! The statements about sources and the coordinators that keep them.

/// Reads the coordinators that have sources which are known, and notes that the sources are needed.
pub(crate) const COPIES: &str = "
    WITH locked AS (
        SELECT digest FROM sources WHERE digest = ANY($1::text[]) ORDER BY digest FOR NO KEY UPDATE),
    needed AS (
        UPDATE sources SET used = now() FROM locked WHERE sources.digest = locked.digest
        RETURNING sources.digest)
    SELECT needed.digest, coordinator FROM needed JOIN source_copies USING (digest)";

/// Reads the sources that are known.
pub(crate) const KNOWN_SOURCES: &str = "SELECT digest FROM sources WHERE digest = ANY($1::text[])";

/// Reads the coordinators that have sources.
pub(crate) const HOLDERS: &str = "
    SELECT digest, coordinator FROM source_copies WHERE digest = ANY($1::text[])";

/// Notes that a coordinator has a source.
pub(crate) const KEEP: &str = "
    WITH known AS (
        INSERT INTO sources (digest) VALUES ($1)
        ON CONFLICT (digest) DO UPDATE SET used = now())
    INSERT INTO source_copies (digest, coordinator) VALUES ($1, $2) ON CONFLICT DO NOTHING";

/// Notes that a coordinator does not have a source.
pub(crate) const LOSE: &str = "DELETE FROM source_copies WHERE digest = $1 AND coordinator = $2";

/// Forgets the sources that no unfinished build and no schedule names and that were not needed for some
/// milliseconds. A submission that needs one of them holds its row, and this reads it again then.
pub(crate) const EXPIRE: &str = "
    DELETE FROM sources WHERE used < now() - interval '1 ms' * $1::bigint
        AND NOT EXISTS (SELECT FROM builds WHERE sources @> ARRAY[digest])
        AND NOT EXISTS (SELECT FROM schedules WHERE sources @> ARRAY[digest])
    RETURNING digest";

/// Notes that a coordinator does not have a source any more that is forgotten.
pub(crate) const DISCARD: &str = "
    DELETE FROM source_copies WHERE digest = $1 AND coordinator = $2
        AND NOT EXISTS (SELECT FROM sources WHERE digest = $1)
    RETURNING digest";

/// Reads the sources of which a coordinator has files, and if each is known.
pub(crate) const KEPT: &str = "
    SELECT source_copies.digest, sources.digest IS NOT NULL
    FROM source_copies LEFT JOIN sources USING (digest) WHERE coordinator = $1";

/// Adds a coordinator, or gives it another key. Those that have not been seen for a year are forgotten.
pub(crate) const REGISTER: &str = "
    WITH old AS (DELETE FROM coordinators WHERE seen < now() - interval '1 year' AND url <> $1)
    INSERT INTO coordinators (url, key_hash, keeps_sources) VALUES ($1, $2, $3)
    ON CONFLICT (url) DO UPDATE SET key_hash = excluded.key_hash,
        keeps_sources = excluded.keeps_sources, beat = coordinators.beat + 1, seen = now()";

/// Raises the beat of a coordinator.
pub(crate) const ATTEND: &str = "
    UPDATE coordinators SET beat = beat + 1, seen = now() WHERE url = $1";

/// Reads the beats of the coordinators that keep sources.
pub(crate) const COORDINATORS: &str = "SELECT url, beat FROM coordinators WHERE keeps_sources";

/// Reads the coordinators that keep sources and were seen lately.
pub(crate) const SEEN_COORDINATORS: &str = "
    SELECT url FROM coordinators WHERE keeps_sources AND seen > now() - interval '15 s'";

/// Counts the sources, and those that unfinished builds or schedules name and no coordinator has that was seen
/// lately.
pub(crate) const COUNT_SOURCES: &str = "
    WITH needed AS (
        SELECT unnest(sources) AS digest FROM builds WHERE sources IS NOT NULL
        UNION SELECT unnest(sources) FROM schedules WHERE sources IS NOT NULL)
    SELECT (SELECT count(*) FROM sources),
        (SELECT count(*) FROM needed WHERE NOT EXISTS (
            SELECT FROM source_copies JOIN coordinators ON url = coordinator
            WHERE source_copies.digest = needed.digest AND keeps_sources
                AND seen > now() - interval '15 s'))";

/// Reads the coordinator of a key.
pub(crate) const COORDINATOR: &str = "SELECT url FROM coordinators WHERE key_hash = $1";
