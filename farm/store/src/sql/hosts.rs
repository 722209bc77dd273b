//! The statements about hosts that people see: names, states, and what all of them offer.

/// The state of a host, as `HostView::state` has it. A host is silent after `$1` milliseconds without a sign of
/// life. The parameter is text, as all of lists are.
macro_rules! state {
    () => {
        "CASE WHEN key_hash IS NULL THEN 'revoked'
            WHEN seen IS NULL THEN 'new'
            WHEN now() - seen >= interval '1 ms' * $1::text::bigint THEN 'silent'
            WHEN drained THEN 'drained'
            WHEN EXISTS (
                SELECT FROM windows WHERE windows.host = hosts.id AND opens <= now()
                    AND (now() < closes OR weekly IS NOT NULL)) THEN 'maintenance'
            WHEN halted THEN 'halted'
            ELSE 'alive' END"
    };
}

/// The state of a host.
pub(crate) const STATE: &str = state!();

/// Counts the hosts by state.
pub(crate) const HOST_STATES: &str =
    concat!("SELECT ", state!(), ", count(*) FROM hosts GROUP BY 1");

/// Reads the states of all hosts, and the versions of their details.
pub(crate) const SITES: &str = concat!("SELECT id, version, ", state!(), " FROM hosts");

/// Reads the number of a host.
pub(crate) const HOST_OF_NAME: &str = "SELECT id FROM hosts WHERE name = $1";

/// Reads the name of a host.
pub(crate) const HOST_NAME: &str = "SELECT name FROM hosts WHERE id = $1";
