//! Reads of hosts: pages of them for people, their numbers by state, and all of them for what is said about
//! the whole farm.

use std::collections::BTreeMap;
use std::time::Instant;

use farm_core::site::{HostState, Site};
use farm_core::view::{HostQuery, HostView};
use farm_core::{HostId, Offer};
use tokio_postgres::Row;

use crate::listing::Listing;
use crate::operations::{Connection, signed};
use crate::rows::{number, parsed, time};
use crate::{Store, StoreError, sql};

/// The table of hosts, in errors.
const TABLE: &str = "hosts";

impl Store {
    /// Returns the hosts that match, by name. A host is alive if it has given a sign of life within half a
    /// lease.
    ///
    /// # Errors
    /// The database fails.
    pub async fn hosts(
        &self,
        query: &HostQuery,
        lease_ms: u64,
    ) -> Result<Vec<HostView>, StoreError> {
        self.host_views(&page(query, lease_ms)).await
    }

    /// Returns the hosts with these names, by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn hosts_named(
        &self,
        names: &[&str],
        lease_ms: u64,
    ) -> Result<Vec<HostView>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        self.host_views(&named(names, lease_ms)).await
    }

    async fn host_views(&self, listing: &Listing) -> Result<Vec<HostView>, StoreError> {
        let rows = self.query(&listing.sql, &listing.parameters()).await?;
        rows.iter().map(host_view).collect()
    }

    /// Returns the numbers of hosts by state.
    ///
    /// # Errors
    /// The database fails.
    pub async fn host_states(&self, lease_ms: u64) -> Result<BTreeMap<HostState, u64>, StoreError> {
        let rows = self.query(sql::HOST_STATES, &[&silent(lease_ms)]).await?;
        let count = |row: &Row| Ok((parsed(TABLE, 0, row.get(0))?, number(row, 1)));
        rows.iter().map(count).collect()
    }

    /// Returns all hosts by name. Offers are read when they have changed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sites(&self, lease_ms: u64) -> Result<Vec<Site>, StoreError> {
        let asked = Instant::now();
        let connection = Connection(self.connection().await?);
        let rows = connection.query(sql::SITES, &[&silent(lease_ms)]).await?;
        let versions = rows.iter().map(|row| (host(row), number(row, 1)));
        let details = self.changed_details(&connection, versions).await?;
        let mut known = self.known();
        known.note(asked, details);
        let mut sites = Vec::with_capacity(rows.len());
        for row in &rows {
            // A key that is taken away at this moment makes the host unknown.
            if let Some((name, offer)) = known.site(host(row)) {
                let state = parsed(TABLE, row.get(0), row.get(2))?;
                sites.push(Site { name, state, offer });
            }
        }
        sites.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sites)
    }

    /// Returns the number of the host with a name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn host_of_name(&self, name: &str) -> Result<Option<HostId>, StoreError> {
        let rows = self.query(sql::HOST_OF_NAME, &[&name]).await?;
        Ok(rows.first().map(host))
    }

    /// Returns the name of a host.
    ///
    /// # Errors
    /// The database fails.
    pub async fn host_name(&self, id: HostId) -> Result<Option<String>, StoreError> {
        let rows = self.query(sql::HOST_NAME, &[&signed(id.0)]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }
}

fn host(row: &Row) -> HostId {
    HostId(number(row, 0))
}

/// Returns the milliseconds without a sign of life after which a host is silent, for the database.
fn silent(lease_ms: u64) -> String {
    (lease_ms / 2).to_string()
}

/// Returns the statement for the hosts that match. There are few combinations of filters, and each is a text
/// of its own, so that the database sees which index serves it.
pub(crate) fn page(query: &HostQuery, lease_ms: u64) -> Listing {
    let mut listing = Listing::default();
    listing.add(silent(lease_ms));
    let mut conditions = Vec::new();
    if let Some(state) = query.state {
        let state = listing.add(state.to_string());
        conditions.push(format!("{} = {state}", sql::STATE));
    }
    if let Some(machine) = &query.machine {
        let machine = listing.add(machine.to_string());
        conditions.push(format!("machines @> ARRAY[{machine}]"));
    }
    if let Some(name) = &query.name {
        let name = listing.add(name.clone());
        conditions.push(format!("strpos(name, {name}) > 0"));
    }
    if let Some(after) = &query.after {
        let after = listing.add(after.clone());
        conditions.push(format!("name > {after}"));
    }
    let limit = query.count.map(|count| format!(" LIMIT {count}"));
    listing.sql = select(&conditions, &limit.unwrap_or_default());
    listing
}

fn named(names: &[&str], lease_ms: u64) -> Listing {
    let mut listing = Listing::default();
    listing.add(silent(lease_ms));
    let names: Vec<_> = names
        .iter()
        .map(|it| listing.add((*it).to_owned()))
        .collect();
    listing.sql = select(&[format!("name IN ({})", names.join(", "))], "");
    listing
}

fn select(conditions: &[String], limit: &str) -> String {
    let filter = match conditions {
        [] => "true".to_owned(),
        conditions => conditions.join(" AND "),
    };
    format!(
        "SELECT name, drained, (extract(epoch FROM seen) * 1000)::bigint, \
         coalesce(now() - seen < interval '1 ms' * $1::text::bigint, false), key_hash IS NULL, \
         (SELECT count(*) FROM builds WHERE builds.host = hosts.id AND state = 1), coalesce(offer, '{{}}') \
         FROM hosts LEFT JOIN offers ON offers.host = hosts.id WHERE {filter} ORDER BY name{limit}"
    )
}

fn host_view(row: &Row) -> Result<HostView, StoreError> {
    let name: String = row.get(0);
    let offer: Offer = serde_json::from_str(row.get(6)).map_err(|error| StoreError::Row {
        table: TABLE,
        row: 0,
        reason: format!("the offer of {name}: {error}"),
    })?;
    Ok(HostView {
        drained: row.get(1),
        seen: row.get::<_, Option<i64>>(2).map(time),
        alive: row.get(3),
        revoked: row.get(4),
        builds: number(row, 5),
        name,
        offer,
        unlike: BTreeMap::new(),
        windows: Vec::new(),
    })
}
