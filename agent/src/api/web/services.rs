//! The page of the services for BitBake.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use config::settings::{Hashserv, Pr, PrMode};
use prserv::package_rows::PackageRows;
use prserv::store::Counts;
use prserv::{Package, Value};
use serde::Deserialize;
use web::{PackageRevision, Section, ServicesPage, Viewer};

use super::super::error::ApiError;
use super::answer::{error_page, page};
use super::frame;
use state::AgentState;

/// The number of packages on the page.
const PACKAGES: u32 = 200;

/// The search for packages.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PackageQuery {
    find: String,
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    query: Result<Query<PackageQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let shown = async {
        let Query(query) = query?;
        let shown = services(&agent, viewer.clone(), query).await?;
        page(&headers, &shown)
    };
    let answer: Result<_, ApiError> = shown.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

async fn services(
    agent: &AgentState,
    viewer: Viewer,
    query: PackageQuery,
) -> Result<ServicesPage, ApiError> {
    let settings = agent.settings();
    let find = query.find.trim().to_owned();
    let found = agent.bitbake.pr.search(&find, PACKAGES + 1).await;
    let (mut packages, counts) = found.map_err(|error| ApiError::internal(&error))?;
    let has_more = packages.len() > PACKAGES as usize;
    packages.truncate(PACKAGES as usize);
    let hashserv = match &agent.bitbake.hashserv {
        Some(service) => {
            let usage = service.usage().await;
            let usage = usage.map_err(|error| ApiError::internal(&error))?;
            Some(hashserv_facts(&settings.hashserv, &usage))
        }
        None => None,
    };
    Ok(ServicesPage {
        frame: frame(agent, viewer, Section::Host, "Services"),
        pr: pr_facts(&settings.pr, counts),
        find,
        packages: packages.into_iter().map(revision).collect(),
        has_more,
        hashserv,
    })
}

fn revision((package, rows): (Package, PackageRows)) -> PackageRevision {
    PackageRevision {
        version: package.version,
        architecture: package.pkgarch,
        value: rows.max().map(Value::to_string).unwrap_or_default(),
        rows: rows.len(),
    }
}

/// Returns the facts about the PR service, without its database, whose address may have a password.
fn pr_facts(settings: &Pr, counts: Counts) -> Vec<(&'static str, String)> {
    let mode = match settings.mode {
        PrMode::ReadWrite => "assigns values",
        PrMode::ReadOnly => "only reads",
        PrMode::Lockdown => "treats all clients as readers",
    };
    let mut facts = vec![
        ("packages", counts.packages.to_string()),
        ("values", counts.rows.to_string()),
        ("mode", mode.to_owned()),
        ("network", network(settings.listen.as_deref())),
    ];
    let parent = settings.upstream.as_ref();
    facts.extend(parent.map(|it| ("parent", it.clone())));
    let elsewhere = settings.elsewhere.iter().map(|it| it.pattern.as_str());
    let elsewhere = elsewhere.collect::<Vec<_>>().join(", ");
    if !elsewhere.is_empty() {
        facts.push(("elsewhere", elsewhere));
    }
    facts
}

fn hashserv_facts(
    settings: &Hashserv,
    usage: &[(&'static str, u64)],
) -> Vec<(&'static str, String)> {
    let rows = usage.iter().map(|(table, rows)| (*table, rows.to_string()));
    let mut facts: Vec<_> = rows.collect();
    let mode = if settings.read_only {
        "only reads"
    } else {
        "accepts reports"
    };
    facts.push(("mode", mode.to_owned()));
    facts.push(("network", network(settings.listen.as_deref())));
    let upstream = settings.upstream.as_ref();
    facts.extend(upstream.map(|it| ("upstream", it.clone())));
    facts
}

fn network(listen: Option<&str>) -> String {
    let text = listen.map(|it| format!("listens on {it}, and at the gateway of each guest"));
    text.unwrap_or_else(|| "at the gateway of each guest only".to_owned())
}

#[cfg(test)]
mod tests {
    use config::settings::Settings;

    use super::*;

    #[test]
    fn the_facts_have_no_database() {
        let text = "pr.database = \"postgres://u:p@h/x\"\npr.upstream = \"hub:8585\"\n";
        let settings = Settings::parse(text).unwrap();
        let counts = Counts {
            packages: 2,
            rows: 5,
        };
        let facts = pr_facts(&settings.pr, counts);
        assert!(facts.contains(&("parent", "hub:8585".to_owned())));
        assert!(!format!("{facts:?}").contains("u:p"), "{facts:?}");
        assert_eq!(facts[1], ("values", "5".to_owned()));
    }
}
