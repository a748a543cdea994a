//! The Talk page: static files, compiled into the binary.
//!
//! Everything a browser loads comes from here, so that the page works without the internet and under
//! a content security policy that knows no other origin. In a debug build the files are read from
//! the source tree, so that a change shows at the next reload.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::refusal::HttpRefusal;

/// Where the page is. Everything that belongs to it is below.
const PAGE: &str = "/talk/";

/// What the page may load and reach: its own origin, WebSocket included, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// On every answer. `microphone=(self)` also keeps frames of other origins from it.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "microphone=(self), camera=(), geolocation=(), display-capture=()",
    ),
];

#[derive(RustEmbed)]
#[folder = "../../ui"]
#[include = "*.html"]
#[include = "*.css"]
#[include = "*.svg"]
#[include = "page/*.js"]
#[include = "client/src/*.js"]
struct Files;

/// Whether a path belongs to the page. `/talk/session` and `/talk/config` are the gateway's own.
pub(crate) fn is_page(path: &str) -> bool {
    match path {
        "/" | "/talk" => true,
        "/talk/session" | "/talk/config" => false,
        _ => path.starts_with(PAGE),
    }
}

/// Answers a request for the page or one of its files.
pub(crate) fn respond<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(HttpRefusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "the page is read by GET",
        )
        .with_header(header::ALLOW, "GET, HEAD"));
    }
    let Some(name) = request.uri().path().strip_prefix(PAGE) else {
        return Ok(moved());
    };
    let name = match name {
        "" => "index.html",
        name => name,
    };
    let file = Files::get(name).ok_or_else(|| {
        HttpRefusal::new(
            StatusCode::NOT_FOUND,
            "unknown_path",
            "the Talk page has no such file; it begins at /talk/",
        )
    })?;
    Ok(served(request, name, file))
}

fn served<B>(request: &Request<B>, name: &str, file: EmbeddedFile) -> Response<Full<Bytes>> {
    let tag = tag(&file);
    let known = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // RFC 9110 section 13.1.2 compares weakly.
        .any(|value| matches!(value.trim().trim_start_matches("W/"), same if same == tag || same == "*"));
    let body = match known {
        true => Bytes::new(),
        false => match file.data {
            std::borrow::Cow::Borrowed(data) => Bytes::from_static(data),
            std::borrow::Cow::Owned(data) => Bytes::from(data),
        },
    };
    let mut response = Response::new(Full::new(body));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(media_type(name)),
    );
    // Kept, but asked about at every load: a new binary must not meet half of an old page.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn moved() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static(PAGE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The first 128 bits of the content's SHA-256.
fn tag(file: &EmbeddedFile) -> String {
    let hash = &file.metadata.sha256_hash()[..16];
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, tag: Option<&str>) -> Response<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(()).unwrap();
        respond(&request).unwrap_or_else(HttpRefusal::into_response)
    }

    fn value<'a>(response: &'a Response<Full<Bytes>>, name: &str) -> &'a str {
        let value = response.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// Status and media type, or where it leads.
    fn check(method: &str, path: &str, expected: &str) {
        let response = ask(method, path, None);
        let what = match value(&response, "location") {
            "" => value(&response, "content-type"),
            location => location,
        };
        let got = format!("{} {what}", response.status().as_u16());
        assert_eq!(got, expected, "{method} {path}");
    }

    #[test]
    fn files() {
        check("GET", "/talk/", "200 text/html; charset=utf-8");
        check("HEAD", "/talk/", "200 text/html; charset=utf-8");
        check("GET", "/talk/style.css", "200 text/css; charset=utf-8");
        check("GET", "/talk/icon.svg", "200 image/svg+xml");
        for script in ["page/app.js", "client/src/index.js"] {
            let path = format!("/talk/{script}");
            check("GET", &path, "200 text/javascript; charset=utf-8");
        }
        check("GET", "/", "307 /talk/");
        check("GET", "/talk", "307 /talk/");
        check("POST", "/talk/", "405 application/json");
    }

    #[test]
    fn what_is_no_part_of_the_page_is_not_served() {
        for path in [
            "nothing.js",
            "client/package.json",
            "client/README.md",
            "client/test/queue.test.mjs",
            "../Cargo.toml",
            "client/src/../../../Cargo.toml",
            "%2e%2e/Cargo.toml",
        ] {
            check("GET", &format!("/talk/{path}"), "404 application/json");
        }
        assert!(!is_page("/talk/session") && !is_page("/talk/config"));
        assert!(!is_page("/v1/realtime") && !is_page("/talkative"));
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let first = ask("GET", "/talk/", None);
        let tag = value(&first, "etag").to_owned();
        assert!(tag.len() == 34 && tag.starts_with('"'), "{tag}");
        let weak = format!("\"other\", W/{tag}");
        for known in [tag.as_str(), weak.as_str(), "*"] {
            assert_eq!(ask("GET", "/talk/", Some(known)).status(), 304, "{known}");
        }
        assert_eq!(ask("GET", "/talk/", Some("\"other\"")).status(), 200);
    }

    #[test]
    fn a_browser_is_told_to_be_strict() {
        for path in ["/talk/", "/talk/page/app.js"] {
            let response = ask("GET", path, None);
            let policy = value(&response, "content-security-policy");
            assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
            assert!(!policy.contains("unsafe") && !policy.contains("http"));
            assert_eq!(value(&response, "x-content-type-options"), "nosniff");
            assert_eq!(
                value(&response, "cross-origin-opener-policy"),
                "same-origin"
            );
            assert!(value(&response, "permissions-policy").contains("microphone=(self)"));
            assert_eq!(value(&response, "cache-control"), "no-cache");
        }
    }
}
