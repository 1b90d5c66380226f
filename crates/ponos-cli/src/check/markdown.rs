//! Findings as one table for a pull request.

use std::fmt::Write as _;

use super::Report;
use super::finding::Severity;
use crate::text;

/// The table, and a line below it.
pub(super) fn table(report: &Report) -> String {
    let mut out = String::new();
    if !report.findings.is_empty() {
        out.push_str("| | where | what | breaks | way out |\n| --- | --- | --- | --- | --- |\n");
    }
    for finding in &report.findings {
        let mark = match finding.severity {
            Severity::Error => "❌",
            Severity::Warning => "⚠️",
        };
        let breaks: Vec<String> = finding.breaks.iter().map(|app| code(app)).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| {mark} {} | {} | {} | {} | {} |",
            finding.code.as_str(),
            code(&finding.subject),
            prose(&finding.message),
            breaks.join(", "),
            prose(&finding.help)
        );
    }
    if !report.findings.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "{}; longest chain: {}",
        report.summary(),
        text::count(report.longest_chain.hops, "hop")
    );
    out
}

/// A text with names between backticks.
fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(i, part)| if i % 2 == 1 { code(part) } else { escape(part) }).collect()
}

/// In tags and not in backticks, so that a name cannot end it, nor a table's cell; and nobody is notified by an `@`.
fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// Every sign that Markdown or HTML could obey, as an entity.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text::line(text, super::SHOWN).chars() {
        if c.is_ascii_punctuation() && !matches!(c, '.' | ',' | ':' | ';' | '-' | '(' | ')' | '?' | '\'') {
            let _ = write!(out, "&#{};", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}
