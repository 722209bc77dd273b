//! The pages of machines and of the host: actions by scope, which first show what they would do.

use tests::api_host::ApiHost;

use super::web_sessions::Browser;

fn host() -> ApiHost {
    let host = ApiHost::new("http.requests_per_second_max = 0\n");
    host.allow(&[("submit", "s"), ("admin", "a")]);
    host.upgrade_machine();
    host
}

fn signed_in<'h>(host: &'h ApiHost, token: &str) -> Browser<'h> {
    let mut browser = Browser::new(host);
    assert_eq!(browser.sign_in(&format!("token={token}")).status(), 303);
    browser
}

fn page(browser: &Browser<'_>, path: &str) -> String {
    let answer = browser.ask("GET", path, "");
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().unwrap()
}

#[test]
fn a_rollback_is_shown_before_an_administrator_makes_it() {
    let host = host();
    let admin = signed_in(&host, "a");
    assert!(page(&admin, "/machines").contains("href=\"/machines/linux\""));
    let machine = page(&admin, "/machines/linux");
    assert!(
        machine.contains("action=\"/machines/linux/rollback\""),
        "{machine}"
    );
    let shown = admin.ask("POST", "/machines/linux/rollback", "revision=1");
    assert_eq!(shown.status(), 200);
    let shown = shown.text().unwrap();
    assert!(
        shown.contains("make revision 1 of linux current"),
        "{shown}"
    );
    let machine = page(&admin, "/machines/linux");
    assert!(machine.contains("name=\"revision\" value=\"1\"><button type=\"submit\">Make current"));
    let done = admin.ask("POST", "/machines/linux/rollback", "revision=1&confirm=yes");
    assert_eq!(done.status(), 303);
    assert_eq!(done.headers()["location"], "/machines/linux");
    let machine = page(&admin, "/machines/linux");
    assert!(machine.contains("name=\"revision\" value=\"2\"><button type=\"submit\">Make current"));
    assert_eq!(
        admin.ask("POST", "/machines/linux/explode", "").status(),
        404
    );
    assert_eq!(admin.ask("GET", "/machines/none", "").status(), 404);
}

#[test]
fn a_submitter_and_a_page_of_another_site_change_no_machine_and_no_host() {
    let host = host();
    let submitter = signed_in(&host, "s");
    assert!(
        !page(&submitter, "/machines/linux").contains("<form method=\"post\" action=\"/machines/")
    );
    let admin = signed_in(&host, "a");
    for (path, form) in [
        ("/machines/linux/rollback", "revision=1&confirm=yes"),
        ("/machines/linux/prune", "keep=1&confirm=yes"),
        ("/host/drain", "reason=x"),
        ("/host/undrain", ""),
        ("/host/doctor/repair", "finding=x&confirm=yes"),
    ] {
        assert_eq!(submitter.ask("POST", path, form).status(), 403, "{path}");
        let foreign = [("origin", "https://evil.example")];
        assert_eq!(
            admin.send("POST", path, &foreign, form).status(),
            403,
            "{path}"
        );
        assert_eq!(admin.send("POST", path, &[], form).status(), 403, "{path}");
    }
    assert!(host.host.drained().is_none());
}

#[test]
fn the_page_of_the_host_drains_and_names_tokens_to_administrators() {
    let host = host();
    let (submitter, admin) = (signed_in(&host, "s"), signed_in(&host, "a"));
    assert!(!page(&submitter, "/host").contains("admin-1"));
    assert!(page(&admin, "/host").contains("admin-1"));
    assert_eq!(
        admin
            .ask("POST", "/host/drain", "reason=new+disks")
            .status(),
        303
    );
    assert!(page(&submitter, "/host").contains("new disks"));
    assert_eq!(admin.ask("POST", "/host/undrain", "").status(), 303);
    assert!(host.host.drained().is_none());
}
