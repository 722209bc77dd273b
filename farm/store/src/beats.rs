//! The hosts: their beats, and the look at all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use config::MachineName;
use farm_core::operation::{Answer, HostRow};
use farm_core::{HostId, Offer};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::known::Details;
use crate::operations::{Connection, signed, text};
use crate::rows::{grant, json, number};
use crate::{Secret, Store, StoreError, sql};

/// A host whose beat was raised.
#[derive(Debug)]
struct Raised {
    beat: u64,
    drained: bool,
    opens_in_ms: Option<u64>,
}

impl Store {
    /// Raises the beats of different hosts, and reads their leases.
    pub(crate) async fn beats(
        &self,
        connection: &Connection,
        beats: &[(HostId, Offer)],
    ) -> Result<Vec<Answer>, StoreError> {
        let ids: Vec<_> = beats.iter().map(|(host, _)| signed(host.0)).collect();
        let offers: Vec<_> = beats.iter().map(|(_, offer)| text(offer)).collect();
        let machines = beats.iter().map(|(_, offer)| {
            let names: Vec<_> = offer.machines.keys().map(MachineName::as_str).collect();
            names.join(",")
        });
        let machines: Vec<_> = machines.collect();
        let halted: Vec<_> = beats.iter().map(|(_, it)| it.halt.is_some()).collect();
        let parameters: &[&(dyn ToSql + Sync)] = &[&ids, &offers, &machines, &halted];
        let rows = connection.query(sql::BEATS, parameters).await?;
        let raised = rows.iter().map(|row| {
            let opens_in_ms = row.get::<_, Option<i64>>(3);
            let raised = Raised {
                beat: number(row, 1),
                drained: row.get(2),
                opens_in_ms: opens_in_ms.map(i64::cast_unsigned),
            };
            (HostId(number(row, 0)), raised)
        });
        let raised: BTreeMap<_, _> = raised.collect();
        let mut leases = self.leases(connection, &raised).await?;
        let (published, trials) = connection.revisions().await?;
        let answers = beats.iter().map(|(host, _)| {
            let Some(it) = raised.get(host) else {
                return Answer::NotFound;
            };
            Answer::Beaten {
                beat: it.beat,
                drained: it.drained,
                opens_in_ms: it.opens_in_ms,
                leases: leases.remove(host).unwrap_or_default(),
                published: published.clone(),
                trials: trials.clone(),
            }
        });
        Ok(answers.collect())
    }

    /// Reads the leases of hosts, and notes from where they are read the next time.
    async fn leases(
        &self,
        connection: &Connection,
        raised: &BTreeMap<HostId, Raised>,
    ) -> Result<BTreeMap<HostId, Vec<farm_core::messages::Grant>>, StoreError> {
        let floors: Vec<_> = {
            let known = self.known();
            let floor = |(host, it): (&HostId, &Raised)| signed(known.floor(*host, it.beat));
            raised.iter().map(floor).collect()
        };
        let ids: Vec<_> = raised.keys().map(|host| signed(host.0)).collect();
        let rows = connection.query(sql::LEASES, &[&ids, &floors]).await?;
        let mut leases: BTreeMap<HostId, Vec<_>> = BTreeMap::new();
        let mut oldest: BTreeMap<HostId, u64> = BTreeMap::new();
        for row in &rows {
            let (host, claim) = (HostId(number(row, 5)), number(row, 6));
            leases.entry(host).or_default().push(grant(row)?);
            let least = oldest.entry(host).or_insert(claim);
            *least = claim.min(*least);
        }
        let mut known = self.known();
        for (host, it) in raised {
            known.note_floor(*host, it.beat, oldest.get(host).copied());
        }
        Ok(leases)
    }

    /// Reads all hosts, and the details of those that have changed.
    pub(crate) async fn look(&self, connection: &Connection) -> Result<Answer, StoreError> {
        let asked = Instant::now();
        let [hosts, beats, claims] = self.known().floors();
        let rows = connection
            .query(sql::HOSTS, &[&hosts, &beats, &claims])
            .await?;
        let versions = rows
            .iter()
            .map(|row| (HostId(number(row, 0)), number(row, 3)));
        let details = self.changed_details(connection, versions).await?;
        let mut known = self.known();
        known.note(asked, details);
        for row in &rows {
            let oldest = row.get::<_, Option<i64>>(6).map(i64::cast_unsigned);
            known.note_floor(HostId(number(row, 0)), number(row, 1), oldest);
        }
        let hosts = rows.iter().map(|row| {
            let host = HostId(number(row, 0));
            HostRow {
                host,
                beat: number(row, 1),
                drained: row.get(2),
                orders: number(row, 4),
                leases: number(row, 5),
                offer: known.offer(host),
            }
        });
        Ok(Answer::Hosts(hosts.collect()))
    }

    /// Reads the details of the hosts that have other versions than the known ones.
    pub(crate) async fn changed_details(
        &self,
        connection: &Connection,
        versions: impl Iterator<Item = (HostId, u64)>,
    ) -> Result<Vec<(HostId, Details)>, StoreError> {
        let outdated = self.known().outdated(versions);
        if outdated.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = outdated.iter().map(|host| signed(host.0)).collect();
        let rows = connection.query(sql::DETAILS, &[&ids]).await?;
        let details = |row: &Row| Ok((HostId(number(row, 0)), host_details(row)?));
        rows.iter().map(details).collect()
    }
}

/// Reads the details of a host: id, name, version, key, offer.
fn host_details(row: &Row) -> Result<Details, StoreError> {
    let key = row.get::<_, Option<&[u8]>>(3);
    let key = key.map(|it| Secret::try_from(it).map_err(|_| unreadable(row, "no hash of a key")));
    Ok(Details {
        version: number(row, 2),
        name: row.get(1),
        key: key.transpose()?,
        offer: Arc::new(json("offers", row, 4)?),
    })
}

fn unreadable(row: &Row, reason: &str) -> StoreError {
    StoreError::Row {
        table: "hosts",
        row: row.get(0),
        reason: reason.to_owned(),
    }
}
