//! The statements about who may do what: hosts with their keys, tokens of clients, web sessions.

/// Adds a host.
pub(crate) const ENROL: &str = "
    WITH token AS (
        DELETE FROM enrolments WHERE token_hash = $1 AND expires > now() RETURNING name)
    INSERT INTO hosts (id, name, key_hash)
    SELECT coalesce((SELECT max(id) FROM hosts), 0) + 1, name, $2 FROM token
    ON CONFLICT (name) DO UPDATE SET key_hash = excluded.key_hash, version = hosts.version + 1,
        orders = hosts.orders + 1
    RETURNING id";

/// Reads the host of a key.
pub(crate) const HOST_OF_KEY: &str = "SELECT id, name FROM hosts WHERE key_hash = $1";

/// Permits one enrolment.
pub(crate) const INVITE: &str = "
    INSERT INTO enrolments VALUES ($1, $2, now() + interval '1 s' * $3)";

/// Takes the key of a host away.
pub(crate) const REVOKE: &str = "
    UPDATE hosts SET key_hash = NULL, version = version + 1, orders = orders + 1 WHERE name = $1";

/// Adds a token of a client.
pub(crate) const ADD_TOKEN: &str =
    "INSERT INTO tokens (name, hash, scope) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// Takes a token of a client away.
pub(crate) const REVOKE_TOKEN: &str = "DELETE FROM tokens WHERE name = $1";

/// Reads the tokens of clients. A farm has few.
pub(crate) const TOKENS: &str = "
    SELECT name, scope, (extract(epoch FROM created) * 1000)::bigint FROM tokens ORDER BY name";

/// Reads the client of a secret.
pub(crate) const TOKEN: &str = "SELECT name, scope FROM tokens WHERE hash = $1";

/// Opens a session of a browser, and deletes those that have ended.
pub(crate) const OPEN_SESSION: &str = "
    WITH ended AS (
        DELETE FROM web_sessions
        WHERE used < now() - interval '12 hours' OR opened < now() - interval '7 days')
    INSERT INTO web_sessions (hash, token) VALUES ($1, $2)";

/// Reads the token of a session that has not ended, and if its use is noted.
pub(crate) const SESSION: &str = "
    SELECT token, used > now() - interval '1 minute' FROM web_sessions
    WHERE hash = $1 AND used > now() - interval '12 hours' AND opened > now() - interval '7 days'";

/// Notes the use of a session.
pub(crate) const TOUCH_SESSION: &str = "UPDATE web_sessions SET used = now() WHERE hash = $1";

/// Ends a session.
pub(crate) const CLOSE_SESSION: &str = "DELETE FROM web_sessions WHERE hash = $1";
