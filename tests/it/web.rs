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

#[test]
fn builds_are_listed_by_the_query_of_the_address() {
    let host = ApiHost::new("http.web = \"read\"\n");
    for number in 0..60 {
        let target = if number % 2 == 0 { "even" } else { "odd" };
        build(&host, target, Some(Outcome::Success), "");
    }
    let page = document(host.get("/builds?package=even&outcome="));
    assert_eq!(texts(&page, ".builds tbody tr").len(), 30);
    assert_eq!(texts(&page, ".chip"), ["package: even ✕remove"]);
    let page = document(host.get("/builds"));
    assert_eq!(texts(&page, ".builds tbody tr").len(), 50);
    let next = Selector::parse("a[rel=next]").unwrap();
    let next = page.select(&next).next().unwrap().attr("href").unwrap();
    let page = document(host.get(next));
    assert_eq!(texts(&page, ".builds tbody tr").len(), 10);
    assert_eq!(texts(&page, "a[rel=next]"), [""; 0]);
    let wrong = host.get("/builds?since=soon");
    assert_eq!(wrong.status(), 400);
    let wrong = Html::parse_document(&wrong.text().unwrap());
    assert!(texts(&wrong, ".notice")[0].starts_with("soon is no time"));
}

#[test]
fn a_log_is_shown_in_windows_and_brings_no_markup() {
    let host = ApiHost::new("http.web = \"read\"\n");
    let id = build(&host, "hello", Some(Outcome::Error), "it failed").id;
    let lines = (1..=5000).map(|number| match number {
        4000 => "\u{1b}[31m<script>\u{1b}[0m error: <b>\n".to_owned(),
        _ => format!("line {number}\n"),
    });
    let directory = host.host.paths.build(id);
    std::fs::create_dir_all(&directory).unwrap();
    tests::write_file(&directory.join("log"), &lines.collect::<String>());
    let page = document(host.get(&format!("/builds/{id}")));
    assert_eq!(texts(&page, ".err code"), ["<script> error: <b>"]);
    assert_eq!(texts(&page, "script").concat(), "");
    assert_eq!(texts(&page, ".err .f1"), ["<script>"]);
    let page = document(host.get(&format!("/builds/{id}/log?line=2500")));
    assert_eq!(texts(&page, ".here code"), ["line 2500"]);
    let count = texts(&page, ".log li").len();
    assert!((300..500).contains(&count), "{count}");
    let page = document(host.get(&format!("/builds/{id}/log?find=line+4")));
    assert_eq!(texts(&page, ".found"), ["1 of 1 110 lines"]);
    let part = host.get(&format!("/builds/{id}/log/lines?from=4999&count=9"));
    let part = Html::parse_fragment(&part.text().unwrap());
    assert_eq!(texts(&part, "code"), ["line 4999", "line 5000"]);
    let stream = host
        .get(&format!("/builds/{id}/log/stream?from=4500"))
        .text()
        .unwrap();
    assert_eq!(stream.matches("<li").count(), 501);
    assert!(stream.ends_with("event: end\ndata: {}\n\n"), "{stream}");
    let raw = host.get(&format!("/builds/{id}/log.txt"));
    assert_eq!(raw.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(raw.headers()["x-content-type-options"], "nosniff");
    assert_eq!(host.get("/builds/77/log").status(), 404);
}

#[test]
fn actions_need_their_scope_and_pages_that_have_them() {
    for (mode, token, expected) in [
        ("full", None, 401),
        ("full", Some("r"), 403),
        ("full", Some("s"), 303),
        ("read", Some("s"), 403),
    ] {
        let host = ApiHost::new(&format!("http.web = \"{mode}\"\n"));
        host.allow(&[("read", "r"), ("submit", "s")]);
        let id = build(&host, "hello", None, "").id;
        let client =
            reqwest::blocking::Client::builder().redirect(reqwest::redirect::Policy::none());
        let url = format!("http://{}/builds/{id}/cancel", host.address);
        let mut request = client.build().unwrap().post(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let status = request.send().unwrap().status();
        assert_eq!(status.as_u16(), expected, "{mode} {token:?}");
        let records = &host.host.records;
        let build = host.block_on(records.get(id)).unwrap().unwrap();
        assert_eq!(build.outcome.is_some(), expected == 303);
    }
}
