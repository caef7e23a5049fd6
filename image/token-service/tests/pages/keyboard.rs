//! A maintainer protects a repository and asks what that means, without a mouse and without script.

use crate::browser::{Browser, ENTER, SPACE, is_installed};
use crate::site::{PASSWORD, Site};
use serde_json::json;

#[test]
fn a_rule_is_added_and_asked_about_with_the_keyboard_alone() {
    if !is_installed("the keyboard on the pages") {
        return;
    }
    let site = Site::start();
    let browser = Browser::start();
    let project = format!("/projects/{}", site.project("flightjs/flight"));

    // A page behind the login comes back after it.
    browser.open(&site.url(&project));
    assert_eq!(
        browser.path(),
        format!("/sign-in?next=%2Fprojects%2F{}", site.project("flightjs/flight"))
    );
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));

    browser.tab_to("#name");
    browser.press("max");
    browser.tab_to("#password");
    browser.press("wrong");
    browser.press(ENTER);
    browser.wait_for("document.querySelector('[role=alert]')");
    assert!(
        browser.text().contains("The user name or the password is wrong."),
        "{}",
        browser.text()
    );
    assert_eq!(browser.ask("document.querySelector('#name').value"), "max");
    assert_eq!(browser.ask("document.querySelector('#password').value"), "");
    browser.tab_to("#password");
    browser.press(PASSWORD);
    browser.tab_to("button[type=submit]");
    browser.enter(&project);

    // The first stop of every page skips its navigation.
    browser.tab_to("a.skip");
    browser.press(ENTER);
    browser.wait_for("document.activeElement.matches('main')");
    browser.tab_to(&format!("a[href='{project}/rules/new']"));
    browser.enter(&format!("{project}/rules/new"));

    // What is wrong is said beside the field, and what was typed stays.
    browser.tab_to("#pattern");
    browser.retype("elsewhere/app*");
    browser.tab_to("button[type=submit]");
    browser.press(ENTER);
    browser.wait_for("document.querySelector('[role=alert]')");
    assert_eq!(browser.ask("document.querySelector('#pattern').value"), "elsewhere/app*");
    assert_eq!(
        browser.ask("document.querySelector('#pattern').getAttribute('aria-invalid')"),
        "true"
    );
    let fault = "document.querySelector('#pattern-fault').innerText";
    assert_eq!(
        browser.ask(fault),
        "Repository path pattern should start with the project's full path"
    );
    assert!(browser.ask("document.title").as_str().unwrap().starts_with("Error: "));
    browser.tab_to("[role=alert] a");
    browser.press(ENTER);
    browser.wait_for("location.hash == '#pattern'");

    browser.tab_to("#pattern");
    browser.retype("flightjs/flight/prod*");
    browser.tab_to("#push");
    browser.press("Own");
    assert_eq!(browser.ask("document.querySelector('#push').value"), "owner");
    browser.tab_to("button[type=submit]");
    browser.enter(&format!("{project}?done=rule-saved"));
    let row = "[...document.querySelectorAll('.rules tbody tr')].map(r => r.innerText).find(t => t.includes('prod*'))";
    let text = browser.ask(row).as_str().unwrap().to_owned();
    let (push, delete) = text.split_once("not protected").expect("deleting is not protected");
    for (who, pushes, deletes) in [
        ("ada", true, true),
        ("olivia", true, true),
        ("max", false, true),
        ("dora", false, false),
    ] {
        assert_eq!((push.contains(who), delete.contains(who)), (pushes, deletes), "{who}: {text}");
    }

    // The same decision as for a client.
    browser.tab_to("nav a[href='/what-if']");
    browser.enter("/what-if");
    browser.tab_to("#user");
    browser.retype("dora");
    browser.tab_to("#repository");
    browser.press("flightjs/flight/prod-1");
    browser.tab_to("button[type=submit]");
    browser.enter("/what-if?ask=1&user=dora&repository=flightjs%2Fflight%2Fprod-1&action=push");
    let verdict = browser
        .ask("document.querySelector('.verdict').innerText")
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        "refused",
        "dora may not push flightjs/flight/prod-1.",
        "denied: container protected; you are not allowed to push new package",
        "dora is developer here",
        "owners and above push: flightjs/flight/prod*",
    ] {
        assert!(verdict.contains(part), "{part}: {verdict}");
    }

    // A token is shown once; then the session ends.
    browser.tab_to("nav a[href='/tokens']");
    browser.enter("/tokens");
    browser.tab_to("#token-name");
    browser.press("pipeline");
    browser.tab_to("input[name=api]");
    browser.press(SPACE);
    browser.tab_to("main button[type=submit]");
    browser.press(ENTER);
    browser.wait_for("document.querySelector('.secret')");
    let secret = browser
        .ask("document.querySelector('.secret').innerText")
        .as_str()
        .unwrap()
        .to_owned();
    assert!(secret.starts_with("cmp_") && secret.len() == 47, "{}", secret.len());
    browser.tab_to(".button.primary");
    browser.enter("/tokens");
    assert!(browser.text().contains("pipeline") && !browser.text().contains(&secret));
    browser.tab_to(".leave button");
    browser.enter("/sign-in");
    browser.open(&site.url(&project));
    assert!(browser.path().starts_with("/sign-in?"));
}
