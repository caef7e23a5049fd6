//! A picture of each page, on a desk and on a telephone, by day and by night; they stay in the target directory to be looked at.

use crate::browser::{Browser, ENTER, is_installed};
use crate::site::{PASSWORD, Site};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Widths of the narrowest telephone and of a desk, in pixels.
const WIDTHS: [u32; 2] = [360, 1200];

#[test]
fn each_page_has_a_picture_and_fits_its_screen() {
    if !is_installed("pictures of the pages") {
        return;
    }
    let site = Site::start();
    let browser = Browser::start();
    let project = format!("/projects/{}", site.project("flightjs/flight"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&directory).unwrap();

    browser.open(&site.url("/sign-in"));
    take(&browser, &directory, "sign-in");
    sign_in(&browser, "rita");
    browser.open(&site.url(&format!("{project}/rules/new")));
    take(&browser, &directory, "forbidden");
    browser.open(&site.url("/projects/999999"));
    take(&browser, &directory, "not-found");
    browser.devtools("Network.clearBrowserCookies", &json!({}));
    browser.open(&site.url("/sign-in"));
    sign_in(&browser, "ada");
    let rule = "[...document.querySelectorAll('.rules .does a')].map(a => a.getAttribute('href'))";
    browser.open(&site.url(&project));
    let rule = browser.ask(rule)[0].as_str().unwrap().to_owned();
    for (name, path) in [
        ("projects", "/projects"),
        ("projects-none", "/projects?search=there-is-none-of-this-name"),
        ("new-project", "/projects/new"),
        ("project", &project),
        ("rule", &rule),
        ("tag-rule", &format!("{project}/tag-rules/new")),
        ("delete-rule", &format!("{rule}/delete")),
        ("tokens", "/tokens"),
        ("what-if", "/what-if"),
        (
            "what-if-refused",
            "/what-if?ask=1&user=dora&repository=flightjs/flight/release/tools&action=push",
        ),
        (
            "what-if-granted",
            "/what-if?ask=1&user=max&repository=flightjs/flight/fragments/pause&action=push",
        ),
        (
            "what-if-wrong",
            "/what-if?ask=1&user=nobody-of-this-name&repository=UPPER&action=push",
        ),
        ("audit", "/audit"),
        ("audit-filtered", "/audit?action=rule.create&since=2020-01-01&outcome=changed"),
    ] {
        browser.open(&site.url(path));
        take(&browser, &directory, name);
    }
    browser.open(&site.url(&format!("{project}/rules/new")));
    browser.tab_to("#pattern");
    browser.retype("elsewhere/*");
    browser.press(ENTER);
    browser.wait_for("document.querySelector('[role=alert]')");
    take(&browser, &directory, "rule-wrong");
    browser.open(&site.url("/tokens"));
    browser.tab_to("#token-name");
    browser.press("picture");
    browser.press(ENTER);
    browser.wait_for("document.querySelector('.secret')");
    take(&browser, &directory, "new-token");
}

fn sign_in(browser: &Browser, name: &str) {
    browser.tab_to("#name");
    browser.press(name);
    browser.tab_to("#password");
    browser.press(PASSWORD);
    browser.press(ENTER);
    browser.wait_for("location.pathname == '/projects'");
}

/// Four pictures of the page as it is.
fn take(browser: &Browser, directory: &Path, name: &str) {
    for scheme in ["light", "dark"] {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.devtools("Emulation.setEmulatedMedia", &features);
        for width in WIDTHS {
            let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500 });
            browser.devtools("Emulation.setDeviceMetricsOverride", &size);
            let extent = browser.ask("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]");
            assert_eq!(extent[0], width, "{name} does not fit {width} pixels");
            let height = extent[1].as_u64().unwrap();
            let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
            let whole = json!({ "captureBeyondViewport": true, "clip": clip });
            let picture = browser.devtools("Page.captureScreenshot", &whole);
            let png = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
            let file: PathBuf = directory.join(format!("{name}-{width}-{scheme}.png"));
            std::fs::write(&file, &png).unwrap();
            let (found, rows) = read(&png);
            assert_eq!(u64::from(found.1), height, "{file:?}");
            assert_eq!(found.0, width, "{file:?}");
            assert!(rows > 60, "{file:?} has {rows} different rows only");
        }
    }
}

/// The size of a picture, and how many different rows it has: an empty page has two or three.
fn read(png: &[u8]) -> ((u32, u32), usize) {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n").expect("a PNG");
    let (mut header, mut data) = (None, Vec::new());
    while rest.len() >= 12 {
        let length = number(&rest[..4]) as usize;
        let (kind, body) = (&rest[4..8], &rest[8..8 + length]);
        match kind {
            b"IHDR" => header = Some((number(&body[..4]), number(&body[4..8]), body[8], body[9])),
            b"IDAT" => data.extend_from_slice(body),
            _ => {}
        }
        rest = &rest[12 + length..];
    }
    let (width, height, depth, colour) = header.expect("a header");
    let channels = match (depth, colour) {
        (8, 2) => 3,
        (8, 6) => 4,
        other => panic!("colours of kind {other:?}"),
    };
    let mut pixels = Vec::new();
    flate2::read::ZlibDecoder::new(&data[..]).read_to_end(&mut pixels).unwrap();
    let row = 1 + width as usize * channels;
    assert_eq!(pixels.len(), row * height as usize);
    let rows: HashSet<&[u8]> = pixels.chunks(row).collect();
    ((width, height), rows.len())
}
