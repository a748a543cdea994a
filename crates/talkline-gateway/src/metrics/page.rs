//! The page of `/metrics`, in the two formats that Prometheus reads.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use prometheus_client::{encoding::text::encode, registry::Registry};

use crate::{metrics::Metrics, refusal::HttpRefusal};

/// Answers `GET /metrics`: one arm of the listener for operators.
pub(crate) fn respond<B>(
    request: &Request<B>,
    metrics: &Metrics,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(HttpRefusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "metrics are asked by GET",
        )
        .with_header(header::ALLOW, "GET, HEAD"));
    }
    let accept = request.headers().get(header::ACCEPT);
    let format = Format::asked_for(accept.and_then(|accept| accept.to_str().ok()));
    let (page, content_type) = metrics.page(format);
    let mut response = Response::new(Full::new(Bytes::from(page)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// How the page is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for.
    #[must_use]
    pub fn asked_for(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }
}

pub(super) fn page(registry: &Registry, format: Format) -> (String, &'static str) {
    let mut page = String::new();
    // Writing to a string fails only when a metric's own encoding does; what was written stands.
    let encoded = encode(&mut page, registry);
    if let Err(error) = encoded {
        tracing::warn!(%error, "a metric could not be written");
    }
    match format {
        Format::OpenMetrics => (
            page,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        Format::Prometheus => (classic(&page), "text/plain; version=0.0.4; charset=utf-8"),
    }
}

/// OpenMetrics names a counter's family without `_total` and ends with `# EOF`; the text format, which
/// is older, has the family's name be the sample's.
fn classic(page: &str) -> String {
    let mut out = String::with_capacity(page.len() + 1024);
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            continue;
        }
        let help = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '));
        if let (Some((name, help)), Some(next)) = (help, lines.peek())
            && *next == format!("# TYPE {name} counter")
        {
            lines.next();
            out.push_str(&format!(
                "# HELP {name}_total {help}\n# TYPE {name}_total counter\n"
            ));
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_has_its_samples_name_in_the_text_format() {
        let open =
            "# HELP a b.\n# TYPE a counter\na_total 1\n# HELP g h.\n# TYPE g gauge\ng 1\n# EOF\n";
        let text = "# HELP a_total b.\n# TYPE a_total counter\na_total 1\n# HELP g h.\n# TYPE g gauge\ng 1\n";
        assert_eq!(classic(open), text);
    }

    #[test]
    fn only_reading_is_answered() {
        let ask = |method: Method| {
            let request = Request::builder().method(method).uri("/metrics").body(());
            respond(&request.unwrap(), &Metrics::new())
        };
        let answer = ask(Method::GET).unwrap();
        let kind = &answer.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(ask(Method::POST).unwrap_err().status(), 405);
    }

    #[test]
    fn the_reader_chooses_the_format() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::asked_for(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::asked_for(Some("*/*")), Format::Prometheus);
        assert_eq!(Format::asked_for(None), Format::Prometheus);
    }
}
