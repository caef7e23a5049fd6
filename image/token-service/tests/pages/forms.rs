//! Requests that no page of the service made, and pages that a visitor may not see.

use crate::http::{Answer, exchange};
use crate::site::{PASSWORD, Site};
use registry_rules::{Role, Visibility};
use registry_store::Holder;
use std::time::{Duration, Instant};
use token_service::hash_password;

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A visitor with the cookie of a session and the word of its forms.
struct Visitor<'a> {
    site: &'a Site,
    cookie: String,
    key: String,
}

impl<'a> Visitor<'a> {
    fn sign_in(site: &'a Site, name: &str) -> Self {
        let body = format!("name={name}&password={}", PASSWORD.replace(' ', "+"));
        let answer = exchange(site.address, "POST", "/sign-in", &[FORM], &body);
        assert_eq!((answer.status, answer.header("location")), (303, "/projects"), "{}", answer.body);
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        let mut visitor = Self {
            site,
            cookie,
            key: String::new(),
        };
        let page = visitor.get("/tokens").body;
        let key = page.split("name=\"form_key\" value=\"").nth(1).unwrap();
        visitor.key = key.split('"').next().unwrap().to_owned();
        visitor
    }

    fn get(&self, path: &str) -> Answer {
        exchange(self.site.address, "GET", path, &[("Cookie", &self.cookie)], "")
    }

    fn post(&self, path: &str, fields: &str) -> Answer {
        self.send(path, &[], &format!("form_key={}&{fields}", self.key))
    }

    fn send(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![FORM, ("Cookie", self.cookie.as_str())];
        all.extend(headers);
        exchange(self.site.address, "POST", path, &all, body)
    }
}

#[test]
fn every_page_forbids_script_frames_and_caches() {
    let site = Site::start();
    let visitor = Visitor::sign_in(&site, "ada");
    for path in ["/sign-in", "/projects", "/audit", "/projects/999", "/projects/new"] {
        let answer = visitor.get(path);
        assert!(answer.header("content-type").starts_with("text/html"), "{path}");
        for (header, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(header), value, "{path}");
        }
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "style-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part) && !policy.contains("script"), "{path}: {policy}");
        }
    }
    let style = exchange(site.address, "GET", "/style.css", &[], "");
    assert_eq!((style.status, style.header("content-type")), (200, "text/css; charset=utf-8"));
    let sign_in = exchange(
        site.address,
        "POST",
        "/sign-in",
        &[FORM],
        &format!("name=ada&password={}", PASSWORD.replace(' ', "+")),
    );
    let cookie = sign_in.header("set-cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=28800"] {
        assert!(cookie.contains(part), "{cookie}");
    }
}

#[test]
fn a_form_counts_only_from_a_page_of_its_session() {
    let site = Site::start();
    let (ada, max) = (Visitor::sign_in(&site, "ada"), Visitor::sign_in(&site, "max"));
    let project = site.project("flightjs/flight");
    let path = format!("/projects/{project}/rules");
    let rule = "pattern=flightjs/flight/x&push=owner&delete=";
    let good = format!("form_key={}&{rule}", max.key);
    for (what, status, answer) in [
        ("no key", 403, max.send(&path, &[], rule)),
        (
            "another session's key",
            403,
            max.send(&path, &[], &format!("form_key={}&{rule}", ada.key)),
        ),
        ("another site", 403, max.send(&path, &[("Sec-Fetch-Site", "cross-site")], &good)),
        ("another origin", 403, max.send(&path, &[("Origin", "http://evil.example")], &good)),
        ("no cookie", 303, exchange(site.address, "POST", &path, &[FORM], &good)),
        ("too much", 413, max.send(&path, &[], &"x".repeat(70_000))),
        (
            "JSON",
            400,
            exchange(
                site.address,
                "POST",
                &path,
                &[("Content-Type", "application/json"), ("Cookie", &max.cookie)],
                "{}",
            ),
        ),
    ] {
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
    }
    let rules = || {
        site.runtime
            .block_on(site.store.current())
            .unwrap()
            .projects
            .by_id(project)
            .unwrap()
            .rules()
            .len()
    };
    assert_eq!(rules(), 3);
    assert_eq!(max.send(&path, &[("Sec-Fetch-Site", "same-origin")], &good).status, 303);
    assert_eq!(rules(), 4);
    let sign_in = format!("name=max&password={}", PASSWORD.replace(' ', "+"));
    let elsewhere = exchange(
        site.address,
        "POST",
        "/sign-in",
        &[FORM, ("Sec-Fetch-Site", "cross-site")],
        &sign_in,
    );
    assert_eq!((elsewhere.status, elsewhere.header("set-cookie")), (403, ""));
    let away = exchange(site.address, "POST", "/sign-in", &[FORM], &format!("{sign_in}&next=//evil.example"));
    assert_eq!(away.header("location"), "/projects");
}

#[test]
fn a_session_ends_with_its_password_and_with_its_user() {
    let site = Site::start();
    for (name, end) in [("max", 0), ("dora", 1), ("gustav", 2)] {
        let visitor = Visitor::sign_in(&site, name);
        assert_eq!(visitor.get("/projects").status, 200);
        let user = site.user(name);
        let hash = hash_password("another password").unwrap();
        site.runtime
            .block_on(async {
                match end {
                    0 => site.store.set_password("test", user, Some(&hash)).await,
                    1 => site.store.set_blocked("test", user, true).await,
                    _ => site.store.delete_user("test", user).await,
                }
            })
            .unwrap();
        let answer = visitor.get("/projects");
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, "/sign-in?next=%2Fprojects"),
            "{name}"
        );
    }
    let bob = exchange(
        site.address,
        "POST",
        "/sign-in",
        &[FORM],
        &format!("name=bob&password={}", PASSWORD.replace(' ', "+")),
    );
    assert_eq!((bob.status, bob.header("set-cookie")), (422, ""));
    let rita = Visitor::sign_in(&site, "rita");
    let (name, value) = rita.cookie.split_once('=').unwrap();
    let (id, rest) = value.split_once('.').unwrap();
    let (ends, seal) = rest.split_once('.').unwrap();
    let later: i64 = ends.parse::<i64>().unwrap() + 1;
    for forged in [
        format!("{}.{ends}.{seal}", site.user("ada")),
        format!("{id}.{later}.{seal}"),
        format!("{id}.{ends}."),
        format!("{id}.{ends}.{}", "A".repeat(43)),
        "..".to_owned(),
    ] {
        let cookie = format!("{name}={forged}");
        let answer = exchange(site.address, "GET", "/projects", &[("Cookie", &cookie)], "");
        assert_eq!(answer.status, 303, "{forged}");
    }
}

#[test]
fn visitors_see_and_change_what_their_role_gives() {
    let site = Site::start();
    let page = |path: &str| format!("/projects/{}", site.project(path));
    let (flight, public, vault) = (page("flightjs/flight"), page("flightjs/site"), page("secret/vault"));
    let stranger = Visitor::sign_in(&site, "stranger");
    let list = stranger.get("/projects").body;
    assert!(
        list.contains("flightjs/site") && !list.contains("flightjs/flight") && !list.contains("secret"),
        "{list}"
    );
    assert_eq!(stranger.get(&flight).status, 404);
    assert_eq!(stranger.get(&vault).status, 404);
    let open = stranger.get(&public);
    assert_eq!(open.status, 200);
    assert!(!open.body.contains("olivia"), "members are for members");
    assert_eq!(stranger.get("/audit").status, 403);

    let dora = Visitor::sign_in(&site, "dora");
    let seen = dora.get(&flight).body;
    assert!(
        seen.contains("flightjs/flight/release*") && !seen.contains("Add rule") && !seen.contains("flight-cluster</code>"),
        "{seen}"
    );
    for (path, fields) in [
        ("rules", "pattern=flightjs/flight/x&push=owner&delete="),
        ("tag-rules", "pattern=x&push=&delete="),
        ("members", "user=stranger&role=owner"),
        ("tokens", "name=x&login=x&read=1"),
        ("visibility", "visibility=public"),
        ("delete", ""),
    ] {
        assert_eq!(dora.post(&format!("{flight}/{path}"), fields).status, 403, "{path}");
    }
    assert_eq!(dora.post("/projects", "path=dora&visibility=public").status, 403);

    let max = Visitor::sign_in(&site, "max");
    assert_eq!(max.post(&format!("{flight}/members"), "user=stranger&role=developer").status, 303);
    let above = max.post(&format!("{flight}/members"), "user=stranger&role=owner");
    assert!(
        above.status == 422 && above.body.contains("Nobody gives or takes a role above their own."),
        "{}",
        above.body
    );
    assert_eq!(max.post(&format!("{flight}/visibility"), "visibility=public").status, 403);
    assert_eq!(max.get(&format!("{flight}/delete")).status, 403);
    let trail = max.get("/audit").body;
    assert!(trail.contains("flightjs/flight") && !trail.contains("secret/vault"), "{trail}");
    assert_eq!(max.get("/audit?project=secret/vault").status, 422);
    let other = max.get("/what-if?ask=1&user=ada&repository=secret/vault/x&action=pull");
    assert!(
        other.status == 422 && !other.body.contains("class=\"card verdict"),
        "{}",
        other.body
    );
    let nobody = max.get("/what-if?ask=1&user=no-such-user&repository=secret/vault/x&action=pull");
    assert_eq!(
        nobody.body.replace("no-such-user", "ada"),
        other.body,
        "a name that exists looks like one that does not"
    );

    let ada = Visitor::sign_in(&site, "ada");
    assert_eq!(ada.post("/projects", "path=new/one&visibility=public").status, 303);
    let taken = ada.post("/projects", "path=new/one&visibility=public");
    assert!(taken.status == 422 && taken.body.contains("already been taken"), "{}", taken.body);
    assert_eq!(ada.post(&format!("{}/delete", page("new/one")), "").status, 303);
    let trail = ada.get("/audit?outcome=refused&actor=dora").body;
    assert!(trail.matches("<span class=\"tag refused\">").count() >= 7, "{trail}");
    assert!(!trail.contains("<span class=\"tag changed\">"));
}

#[test]
fn each_edit_of_a_page_reaches_the_rules() {
    let site = Site::start();
    let flight = site.project("flightjs/flight");
    let page = format!("/projects/{flight}");
    let ada = Visitor::sign_in(&site, "ada");
    let state = || site.runtime.block_on(site.store.current()).unwrap();
    let first = state().projects.by_id(flight).unwrap().rules()[0].id;
    let done = |answer: Answer, word: &str| {
        assert_eq!(answer.status, 303, "{}", answer.body);
        assert!(
            answer.header("location").contains(&format!("done={word}")),
            "{}",
            answer.header("location")
        );
    };
    done(
        ada.post(&format!("{page}/rules/{first}"), "pattern=flightjs/flight/r*&push=&delete=owner"),
        "rule-saved",
    );
    let rule = state()
        .projects
        .by_id(flight)
        .unwrap()
        .rules()
        .iter()
        .find(|rule| rule.id == first)
        .unwrap()
        .clone();
    assert_eq!((rule.pattern.as_str(), rule.push), ("flightjs/flight/r*", None));
    let none = ada.post(&format!("{page}/rules/{first}"), "pattern=flightjs/flight/r*&push=&delete=");
    assert!(
        none.status == 422 && none.body.contains("at least a minimum access role"),
        "{}",
        none.body
    );
    done(ada.post(&format!("{page}/rules/{first}/delete"), ""), "rule-deleted");
    assert_eq!(ada.post(&format!("{page}/rules/{first}/delete"), "").status, 404);
    let tag = state().projects.by_id(flight).unwrap().tag_rules()[0].id;
    done(
        ada.post(&format!("{page}/tag-rules/{tag}"), "pattern=v.*&push=owner&delete=owner"),
        "rule-saved",
    );
    let one = ada.post(&format!("{page}/tag-rules"), "pattern=w.*&push=owner&delete=");
    assert!(
        one.status == 422 && one.body.contains("either both be present or both be nil"),
        "{}",
        one.body
    );
    done(ada.post(&format!("{page}/visibility"), "visibility=public"), "visibility-saved");
    assert_eq!(state().projects.by_id(flight).unwrap().visibility, Visibility::Public);
    let dora = site.user("dora");
    done(ada.post(&format!("{page}/members"), "user=dora&role=owner"), "member-saved");
    assert!(state().members(Holder::Project(flight)).contains(&(dora, Role::Owner)));
    done(ada.post(&format!("{page}/members/{dora}/remove"), ""), "member-removed");
    assert!(state().members(Holder::Project(flight)).iter().all(|(user, _)| *user != dora));

    let made = ada.post(&format!("{page}/tokens"), "name=n&login=puller&read=1&expires=2099-12-31");
    assert!(made.status == 201 && made.body.contains(">cmd_"), "{}", made.status);
    let token = state().tokens().find(|token| token.name == "n").unwrap().clone();
    assert_eq!(token.expires, Some(4_102_444_800));
    assert!(ada.get(&page).body.contains("2099-12-31"));
    for (fields, fault) in [
        ("name=n2&login=l2&expires=", "Choose what the token may do."),
        ("name=n2&login=l2&read=1&expires=2001-01-01", "This day is over."),
        ("name=n2&login=l2&read=1&expires=soon", "This is no day"),
        ("name=&login=l2&read=1&expires=", "A name has 1 to 100 characters."),
    ] {
        let answer = ada.post(&format!("{page}/tokens"), fields);
        assert!(answer.status == 422 && answer.body.contains(fault), "{fields}: {}", answer.body);
    }
    assert_eq!(
        ada.post(&format!("/tokens/{}/revoke", token.id), "").status,
        404,
        "it is not a personal one"
    );
    done(ada.post(&format!("{page}/tokens/{}/revoke", token.id), ""), "token-revoked");
    assert!(
        state()
            .tokens()
            .all(|known| known.id != token.id || !known.is_valid_at(i64::MAX / 2))
    );
    let laptop = state().tokens().find(|token| token.name == "laptop").unwrap().id;
    assert_eq!(
        ada.post(&format!("/tokens/{laptop}/revoke"), "").status,
        404,
        "it is another user's"
    );
}

#[test]
fn without_its_database_a_page_says_so_and_the_session_lasts() {
    let site = Site::start();
    let visitor = Visitor::sign_in(&site, "ada");
    let path = format!("/projects/{}", site.project("flightjs/flight"));
    let file = |name: &str| site.directory.path().join(name);
    std::fs::rename(file("registry.db"), file("registry.gone")).unwrap();
    for answer in [
        visitor.get(&path),
        visitor.post(&format!("{path}/rules"), "pattern=x&push=owner&delete="),
    ] {
        assert_eq!(answer.status, 503);
        assert!(answer.header("content-type").starts_with("text/html"));
        assert!(answer.body.contains("<h1>The service is not available</h1>"), "{}", answer.body);
        assert!(!answer.body.contains(site.directory.path().to_str().unwrap()), "{}", answer.body);
    }
    std::fs::rename(file("registry.gone"), file("registry.db")).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while visitor.get(&path).status != 200 {
        assert!(Instant::now() < end, "the service's return");
        std::thread::sleep(Duration::from_millis(50));
    }
}
