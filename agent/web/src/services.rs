//! The page of the services for BitBake: the PR service and the hash equivalence service.

use askama::Template;

use crate::frame::Frame;

/// The page of the services for BitBake.
#[derive(Debug, Template)]
#[template(path = "services.html")]
pub struct ServicesPage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The facts about the PR service: a term and its text each.
    pub pr: Vec<(&'static str, String)>,
    /// The text that the versions of the packages contain.
    pub find: String,
    /// The packages that were found.
    pub packages: Vec<PackageRevision>,
    /// True if there are more.
    pub has_more: bool,
    /// The facts about the hash equivalence service; `None` if the settings disable it.
    pub hashserv: Option<Vec<(&'static str, String)>>,
}

/// A package of the PR service with its current revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRevision {
    /// Name, version and recipe revision, such as `busybox-1.36.1-r0`.
    pub version: String,
    /// The architecture.
    pub architecture: String,
    /// The greatest value.
    pub value: String,
    /// The number of values that were assigned.
    pub rows: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(packages: Vec<PackageRevision>, find: &str) -> String {
        let page = ServicesPage {
            frame: Frame::plain("Services"),
            pr: vec![("packages", "2".to_owned())],
            find: find.to_owned(),
            packages,
            has_more: true,
            hashserv: None,
        };
        page.render().unwrap()
    }

    #[test]
    fn names_of_packages_are_text() {
        let package = PackageRevision {
            version: "<script>".to_owned(),
            architecture: "all".to_owned(),
            value: "3".to_owned(),
            rows: 4,
        };
        let html = page(vec![package], "\"><script>");
        assert!(
            !html.contains("<script>") && html.contains("first 1"),
            "{html}"
        );
    }

    #[test]
    fn an_empty_list_says_whether_it_was_searched() {
        assert!(page(Vec::new(), "").contains("No package has a revision yet"));
        assert!(page(Vec::new(), "x").contains("No version contains"));
    }
}
