//! The pages of the host: settings, services and projects.

use tests::api_host::ApiHost;
use tests::web_demo::WebDemo;

fn page(host: &ApiHost, token: &str, path: &str) -> (u16, String) {
    let answer = host.remote("GET", path).bearer_auth(token).send().unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

#[test]
fn the_settings_are_those_of_the_file_and_only_for_administrators() {
    let host = ApiHost::new("http.requests_per_second_max = 0\n");
    host.allow(&[("read", "r"), ("admin", "a")]);
    assert_eq!(page(&host, "r", "/host/settings").0, 403);
    let (status, defaults) = page(&host, "a", "/host/settings");
    assert_eq!(status, 200);
    assert!(defaults.contains("All settings have their defaults"));
    let file = host.path("agent.toml");
    host.host.settings_file.set(file.clone()).unwrap();
    let text =
        "[pr]\nupstream = \"https://user:word@hub.example.org:8585\"\n[http]\ngroup = \"x\"\n";
    tests::write_file(&file, text);
    let (status, faulty) = page(&host, "a", "/host/settings");
    assert_eq!(status, 200);
    assert!(faulty.contains("line 2"), "{faulty}");
    tests::write_file(&file, "[http]\ngroup = \"x\"\n[builds]\nretries_max = 9\n");
    let (_, written) = page(&host, "a", "/host/settings");
    assert!(written.contains("line 4") && written.contains("sets 2"));
    assert!(written.contains("in effect after a reload"));
}

#[test]
fn packages_are_found_by_a_part_of_their_version() {
    let demo = WebDemo::start("http.requests_per_second_max = 0", 1);
    demo.api.allow(&[("read", "r")]);
    let (status, all) = page(&demo.api, "r", "/host/services");
    assert_eq!(status, 200);
    assert!(all.contains("busybox-1.2-r0") && all.contains("zlib-1.2-r0"));
    let (_, found) = page(&demo.api, "r", "/host/services?find=ZLIB");
    assert!(!found.contains("busybox-1.2-r0") && found.contains("zlib-1.2-r0"));
    let (_, none) = page(&demo.api, "r", "/host/services?find=%3Cb%3E");
    assert!(none.contains("No version contains") && !none.contains("<b>"));
    assert_eq!(page(&demo.api, "r", "/host/services?x=1").0, 400);
    let (_, host) = page(&demo.api, "r", "/host");
    assert!(host.contains("/builds?project=camera") && host.contains("nightly"));
}
