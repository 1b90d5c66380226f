//! The two forms in which Prometheus reads metrics.

use std::sync::Arc;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use super::gauges::Gauges;
use super::view::View;

/// The content type of [`Form::OpenMetrics`].
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of [`Form::Plain`].
pub(super) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
    /// What Prometheus read before, without exemplars.
    Plain,
}

impl Form {
    /// What the client asks for in its header `Accept`.
    pub(super) fn accepted(accept: &str) -> Self {
        let wants = |part: &str| {
            let mut fields = part.split(';').map(str::trim);
            fields.next() == Some("application/openmetrics-text")
                && !fields.any(|field| matches!(field, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        if accept.split(',').any(|part| wants(part.trim())) { Self::OpenMetrics } else { Self::Plain }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => OPEN_METRICS,
            Self::Plain => PLAIN,
        }
    }
}

impl View {
    /// All metrics in OpenMetrics' form.
    pub(crate) fn open_metrics(self: &Arc<Self>) -> String {
        let mut gauges = Registry::with_labels([("app".into(), self.app.into())].into_iter());
        gauges.register_collector(Box::new(Gauges(Arc::clone(self))));
        let mut text = String::new();
        let written = encode_registry(&mut text, self.meter.registry())
            .and_then(|()| encode_registry(&mut text, &gauges))
            .and_then(|()| encode_eof(&mut text));
        written.expect("a string takes whatever is written");
        text
    }

    pub(super) fn metrics(self: &Arc<Self>, form: Form) -> String {
        let text = self.open_metrics();
        match form {
            Form::OpenMetrics => text,
            Form::Plain => plain(&text),
        }
    }
}

/// The same in the older form: counters are named with their suffix, and there are no units and no exemplars.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest; // its name depends on the type, which follows
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let help = help.strip_prefix(name).unwrap_or_default();
            text.push_str(&format!("# HELP {name}{suffix}{help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(without_exemplar(line));
            text.push('\n');
        }
    }
    text
}

/// Cuts what follows the value. A label's value may hold anything, so its quotes are followed.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_openmetrics_gets_it_and_everybody_else_the_older_form() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Form::accepted(prometheus), Form::OpenMetrics);
        for accept in ["", "*/*", "text/plain", "application/openmetrics-text;q=0, text/plain"] {
            assert_eq!(Form::accepted(accept), Form::Plain, "{accept}");
        }
    }

    #[test]
    fn the_older_form_names_counters_in_full_and_holds_no_exemplars() {
        let open = "# HELP a_seconds How long.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
            a_seconds_bucket{le=\"1.0\"} 1 # {trace_id=\"00\"} 0.5 1.5\n\
            # HELP b How often.\n# TYPE b counter\nb_total{name=\"x # \\\" y\"} 2 # {trace_id=\"00\"} 1\n# EOF\n";
        assert_eq!(
            plain(open),
            "# HELP a_seconds How long.\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"1.0\"} 1\n\
            # HELP b_total How often.\n# TYPE b_total counter\nb_total{name=\"x # \\\" y\"} 2\n"
        );
    }
}
