//! The pages, as Lighthouse judges them.

/// Tests that take minutes; `scripts/test --long` runs them.
mod long {
    use std::time::Duration;

    use serde_json::Value;
    use sys::command::{prepare, run};
    use tests::web_demo::WebDemo;

    /// The pages that are judged.
    const PAGES: [&str; 4] = ["/", "/builds", "/builds/116", "/builds/116/log"];
    /// The categories, each with its least score.
    const SCORES: [(&str, f64); 3] = [
        ("accessibility", 0.95),
        ("best-practices", 0.95),
        ("performance", 0.90),
    ];

    #[test]
    #[ignore = "downloads Lighthouse; needs Chromium and Node.js"]
    fn pages_have_good_scores() {
        let lighthouse = tests::npm::install("lighthouse").join("lighthouse");
        let demo = WebDemo::start("http.web = \"read\"", 120);
        for page in PAGES {
            let mut judge = prepare(&lighthouse);
            judge
                .env("CHROME_PATH", "/usr/bin/chromium")
                .args(["--quiet", "--output=json", "--preset=desktop"])
                .arg("--only-categories=accessibility,best-practices,performance")
                .arg("--chrome-flags=--headless=new --no-sandbox")
                .arg(format!("http://{}{page}", demo.api.address));
            let report = run(judge, Duration::from_mins(3)).unwrap();
            let report: Value = serde_json::from_slice(&report).unwrap();
            for (category, least) in SCORES {
                let score = report["categories"][category]["score"].as_f64();
                assert!(score >= Some(least), "{page}: {category}: {score:?}");
                println!("{page}: {category}: {score:?}");
            }
        }
    }
}
