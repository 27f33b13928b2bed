//! The status page: one file, with nothing from elsewhere, for who asks with a browser.
//!
//! Promises: its policy lets run the one script and use the one style that stand in it, known by their hashes, and lets it ask this
//! listener only. The page shows `/status`; it is written so that nothing from there can become markup, and browsers that know of
//! trusted types would refuse it.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

const PAGE: &str = include_str!("index.html");

/// What the page may do. The hashes are those of what stands between its `script` and `style` tags; tests/page.rs tells them.
const POLICY: &str = "default-src 'none'; script-src 'sha256-Gc2QEH+kilKEPpd8aWMzw5P15pMNcsNRQ6cQM1HdS+w='; \
                      style-src 'sha256-rvUg5Vk83Fe0iCYN+TL2Xy9IjQ5mKLmGseZ060+/Gis='; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The page for a browser, the list of pages as text for anybody else.
pub(super) fn answer(headers: &HeaderMap, list: &'static str) -> Response {
    let accepts =
        headers.get_all(header::ACCEPT).iter().any(|accept| accept.as_bytes().windows(9).any(|w| w == b"text/html"));
    let vary = (header::VARY, "accept");
    if accepts {
        let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
        (StatusCode::OK, [kind, vary, (header::CONTENT_SECURITY_POLICY, POLICY)], PAGE).into_response()
    } else {
        (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), vary], list).into_response()
    }
}
