//! The web pages, as the agent serves them.

use config::builds::{Build, State, Submitter};
use config::task::Outcome;
use jiff::Timestamp;
use scraper::{Html, Selector};
use tests::api_host::ApiHost;

/// Returns the document of a successful response.
fn document(response: reqwest::blocking::Response) -> Html {
    assert_eq!(response.status(), 200);
    Html::parse_document(&response.text().unwrap())
}

/// Returns the texts of the elements that a selector finds.
fn texts(document: &Html, selector: &str) -> Vec<String> {
    let selector = Selector::parse(selector).unwrap();
    let found = document.select(&selector);
    let text = |element: scraper::ElementRef<'_>| {
        let all: String = element.text().collect();
        all.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    found.map(text).collect()
}

/// Records a build that has ended, or one that waits.
fn build(host: &ApiHost, target: &str, outcome: Option<Outcome>, message: &str) -> Build {
    let text = serde_json::json!({"machine": "linux", "sources": [], "target": target}).to_string();
    let request = serde_json::from_str(&text).unwrap();
    let (toolchain, now) = ("default".parse().unwrap(), Timestamp::now());
    let records = &host.host.records;
    host.runtime.block_on(async {
        let build = records
            .submit(request, toolchain, Submitter::root(), now)
            .await;
        let mut build = build.unwrap();
        build.message = message.to_owned();
        if outcome.is_some() {
            build.enter(State::Starting, now).unwrap();
            build.enter(State::Finished, now).unwrap();
            build.outcome = outcome;
        }
        records.save(&mut build).await.unwrap();
        build
    })
}

#[test]
fn the_overview_shows_texts_of_builds_as_texts() {
    let host = ApiHost::new("http.web = \"read\"\n");
    let page = document(host.get("/"));
    assert_eq!(texts(&page, "h2")[2], "First steps");
    build(
        &host,
        "<script>alert(1)</script>",
        Some(Outcome::Error),
        "<b>&",
    );
    build(&host, "zlib", None, "for a guest");
    let page = document(host.get("/"));
    assert_eq!(texts(&page, "script"), [""], "only that of the page");
    assert_eq!(
        texts(&page, "#failing .name"),
        ["<script>alert(1)</script>"]
    );
    assert_eq!(texts(&page, "#failing .why"), ["<b>&"]);
    assert_eq!(texts(&page, "#waiting .name"), ["2 zlib"]);
    assert_eq!(texts(&page, "#waiting .why"), ["waits for a guest"]);
}

#[test]
fn a_page_allows_nothing_from_elsewhere_and_is_sent_once() {
    let host = ApiHost::new("http.web = \"read\"\n");
    let first = host.get("/");
    let policy = first.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    assert_eq!(first.headers()["x-content-type-options"], "nosniff");
    let tag = first.headers()["etag"].clone();
    let again = host.remote("GET", "/").header("if-none-match", tag);
    assert_eq!(again.send().unwrap().status(), 304);
    let page = document(first);
    for (selector, attribute) in [("link[rel]", "href"), ("script", "src")] {
        for element in page.select(&Selector::parse(selector).unwrap()) {
            let file = host.get(element.attr(attribute).unwrap());
            assert_eq!(file.status(), 200);
            assert!(
                file.headers()["cache-control"]
                    .to_str()
                    .unwrap()
                    .contains("immutable")
            );
        }
    }
    assert_eq!(host.get("/static/page.css").status(), 404);
}

#[test]
fn the_setting_decides_who_reads_pages() {
    for (mode, expected) in [
        // The status without a token, and with one; the name of the reader.
        ("off", (404, 404)),
        ("read", (200, 200)),
        // The login page.
        ("full", (200, 200)),
    ] {
        let host = ApiHost::new(&format!("http.web = \"{mode}\"\n"));
        host.allow(&[("admin", "a")]);
        let anonymous = host.get("/").status().as_u16();
        let known = host.remote("GET", "/").bearer_auth("a").send().unwrap();
        assert_eq!((anonymous, known.status().as_u16()), expected, "{mode}");
        if mode == "full" {
            let page = document(known);
            assert_eq!(texts(&page, "span.viewer"), ["token:admin-1 (admin)"]);
            let page = Html::parse_document(&host.get("/").text().unwrap());
            assert_eq!(texts(&page, ".login label"), ["Token"]);
        }
    }
}
