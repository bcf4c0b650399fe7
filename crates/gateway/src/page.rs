//! What a person sees in a browser when a preview cannot be shown: the same facts as in the JSON answer, to be read.

use crate::body::GatewayBody;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};

/// Whether whoever asks reads HTML.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|accept| accept.contains("text/html"))
}

pub fn page(status: StatusCode, message: &str) -> Response<GatewayBody> {
    let title = title_of(status);
    let message = escaped(message);
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:15vh auto;padding:0 1em}}\
         small{{color:#777}}</style></head>\
         <body><h1>{title}</h1><p>{message}</p><p><small>{} · Infield</small></p></body></html>",
        status.as_u16()
    );
    let mut response = Response::new(GatewayBody::text(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn title_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "This preview is private",
        StatusCode::FORBIDDEN => "This link does not work any more",
        StatusCode::NOT_FOUND => "No such sandbox",
        StatusCode::BAD_REQUEST => "The sandbox does not run",
        StatusCode::NOT_IMPLEMENTED => "Not built yet",
        _ => "The preview cannot be shown now",
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_message_becomes_markup() {
        assert_eq!(escaped("<a href='x'>&\"b"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;b");
    }
}
