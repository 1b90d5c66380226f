//! `ponos failed edit`: a corrected copy of a failed job, and the original put away.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use ponos::core::Bytes;
use ponos::core::body;
use ponos::core::envelope::MessageName;
use ponos::core::manifest::Manifest;
use ponos::core::name::QueueName;
use ponos::{MessageId, Operation};
use serde::Serialize;

use super::args::EditArgs;
use super::diff::{self, Line};
use super::shape;
use super::store::{self, Failed, Shelf};
use super::tree::Tree;
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, steer, text};

/// How much of a changed line is shown, in bytes.
const MAX_LINE: usize = 400;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    action: &'static str,
    dry_run: bool,
    operation: Option<&'a str>,
    /// The original, which is among the discarded jobs when it is done.
    id: MessageId,
    /// The corrected copy.
    new_id: Option<MessageId>,
    queue: Option<&'a QueueName>,
    /// Lines that begin with `-` and `+`, and what is around them.
    diff: Vec<String>,
}

pub(super) async fn run(args: EditArgs, session: &Session, out: &mut Output) -> Result<Exit, CliError> {
    let apps = store::apps(session, Shelf::Failed, args.app.as_ref()).await?;
    let job = store::the_one(session, Shelf::Failed, &apps, args.id).await?;
    let Some(queue) = job.report().map(|report| report.queue.clone()) else {
        return Err(CliError::refused(
            format!("the job {} has no report, so its queue is not known", args.id),
            "publish it anew with `ponos publish`, and discard this one",
        ));
    };
    let (tid, old) = without_tid(&job)?;
    let new = edited(&args, &old)?;
    let diff = difference(&old, &new, args.unredacted);
    let mut document = Document {
        version: json::VERSION,
        action: "edit",
        dry_run: !args.yes,
        operation: None,
        id: args.id,
        new_id: None,
        queue: Some(&queue),
        diff: diff.iter().map(|(mark, line)| format!("{mark} {line}")).collect(),
    };
    if diff.is_empty() {
        return Err(CliError::refused("nothing was changed", "`ponos failed retry` puts it back as it is"));
    }
    let body = encode(tid, new)?;
    if let Some(file) = &args.manifest {
        check(file, &job, &body)?;
    }
    if !args.json {
        print(&diff, out);
    }
    let confirmed = args.yes || (!args.dry_run && !args.json && asked(out));
    if !confirmed {
        if args.json {
            json::print(&document, out);
        } else {
            out.line(&format!("would put a corrected copy into {queue}, and {} away", args.id));
        }
        return if args.dry_run {
            Ok(Exit::Ok)
        } else {
            Err(CliError::unconfirmed("nothing was done: this would edit 1 job"))
        };
    }
    session.watch().await;
    let operation = Operation::begun_by(steer::whoami());
    let jobs = store::jobs_of(session, &job.app);
    let edited = session.ask(jobs.edit(args.id, body, &operation)).await?.ok_or_else(|| {
        CliError::refused(
            format!("{} is no longer among the failed jobs, so nothing was done", args.id),
            "somebody else retried, edited or discarded it: `ponos failed list` shows what is there",
        )
    })?;
    if args.json {
        document.dry_run = false;
        document.operation = Some(&operation.id);
        document.new_id = Some(edited.id);
        json::print(&document, out);
    } else {
        let done = out.paint(Tone::Good, "edited");
        out.line(&format!("{done} {} → {}", args.id, edited.queue));
        out.line(&format!("  new id    {}", edited.id));
        out.line(&format!("  original  {}, {}", QueueName::discarded(&job.app), operation.id));
    }
    Ok(Exit::Ok)
}

/// The body without its transaction id, which does not change.
fn without_tid(job: &Failed) -> Result<(Tree, Tree), CliError> {
    let mut body =
        Tree::parse(&job.envelope.body).filter(|body| matches!(body, Tree::Object(_))).ok_or_else(|| {
            CliError::refused(
                format!("the body of {} is no JSON object", job.envelope.id),
                "publish it anew with `ponos publish`, and discard this one",
            )
        })?;
    let tid = body.remove("tid").unwrap_or_else(|| Tree::text(&job.envelope.tid.to_string()));
    Ok((tid, body))
}

fn edited(args: &EditArgs, old: &Tree) -> Result<Tree, CliError> {
    let mut new = old.clone();
    if let Some(file) = &args.patch {
        let patch =
            Tree::parse(&read(file)?).filter(|patch| matches!(patch, Tree::Object(_))).ok_or_else(|| {
                CliError::usage(
                    format!("the patch `{}` is no JSON object", file.display()),
                    "write what changes, such as {\"org\":{\"id\":7}}; `null` removes",
                )
            })?;
        new.merge(patch);
    } else if args.set.is_empty() {
        new = in_editor(old)?;
    }
    for set in &args.set {
        let Some((path, value)) = set.split_once('=') else {
            return Err(CliError::usage(format!("`{set}` has no `=`"), "write --set path=value"));
        };
        let value = Tree::parse(value.as_bytes()).unwrap_or_else(|| Tree::text(value));
        new.set(path, value).map_err(|problem| {
            CliError::usage(
                format!("`{path}` cannot be set: {problem}"),
                format!("`ponos failed show {} --body` shows what there is", args.id),
            )
        })?;
    }
    if new.get("tid").is_some() {
        return Err(CliError::usage(
            "the transaction id cannot be changed",
            "leave `tid` out: the copy belongs to the original's transaction",
        ));
    }
    Ok(new)
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(file).map(|read| bytes = read)
    };
    read.map(|()| bytes).map_err(|error| {
        CliError::usage(
            format!("`{}` cannot be read: {error}", file.display()),
            "name a file, or - for the standard input",
        )
    })
}

/// What somebody makes of the body in the editor of their choice.
fn in_editor(old: &Tree) -> Result<Tree, CliError> {
    let name = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = name("VISUAL").or_else(|| name("EDITOR")).filter(|_| std::io::stdin().is_terminal());
    let Some(editor) = editor else {
        return Err(CliError::usage(
            "nothing says what is to be changed",
            "say --set path=value or --patch FILE, or name an editor with EDITOR on a terminal",
        ));
    };
    let broken = |error: std::io::Error| {
        CliError::usage(format!("the body cannot be edited: {error}"), "say --set path=value or --patch FILE")
    };
    let mut file = tempfile::Builder::new().prefix("ponos-").suffix(".json").tempfile().map_err(broken)?;
    writeln!(file, "{}", json::pretty(&old.to_json(), "")).map_err(broken)?;
    file.flush().map_err(broken)?;
    let mut words = editor.split_whitespace();
    let status = Command::new(words.next().unwrap_or_default())
        .args(words)
        .arg(file.path())
        .status()
        .map_err(broken)?;
    if !status.success() {
        return Err(CliError::refused(
            "the editor was left with an error, so nothing was done",
            "save and leave it",
        ));
    }
    // By its name: editors write a new file over the old one.
    let bytes = std::fs::read(file.path()).map_err(broken)?;
    Tree::parse(&bytes).filter(|body| matches!(body, Tree::Object(_))).ok_or_else(|| {
        CliError::refused("what the editor left is no JSON object, so nothing was done", "edit it again")
    })
}

/// The body on the wire: the transaction id first.
fn encode(tid: Tree, new: Tree) -> Result<Bytes, CliError> {
    let Tree::Object(mut pairs) = new else {
        return Err(CliError::usage("the new body is no JSON object", "write {…}"));
    };
    pairs.insert(0, ("tid".to_owned(), tid));
    let bytes = Tree::Object(pairs).to_json().into_bytes();
    body::object(&bytes).map_err(|error| {
        CliError::usage(format!("the new body cannot be published: {error}"), "send a smaller JSON object")
    })?;
    Ok(bytes.into())
}

/// Whether the manifest of a service that knows the message allows the body.
fn check(file: &Path, job: &Failed, body: &[u8]) -> Result<(), CliError> {
    let shown = file.display();
    let wrong = |problem: String| {
        CliError::usage(
            format!("the manifest `{shown}`: {problem}"),
            "a service prints its manifest with `PONOS_MANIFEST=1`: `PONOS_MANIFEST=1 service > FILE`",
        )
    };
    let text = String::from_utf8(read(file)?).map_err(|error| wrong(error.to_string()))?;
    let manifest = Manifest::from_json(&text).map_err(|error| wrong(error.to_string()))?;
    let name = job.envelope.name.as_str();
    let schema = match &job.envelope.name {
        MessageName::Task(_) => manifest.tasks.iter().find(|task| task.name == name).map(|task| &task.schema),
        MessageName::Event(_) => manifest.events.get(name).map(|event| &event.schema),
    };
    let schema = schema.ok_or_else(|| wrong(format!("does not know `{name}`")))?;
    let mut body = body::object(body).map_err(|error| wrong(error.to_string()))?;
    body.remove("tid");
    let problems = shape::problems(schema, &body.into());
    if problems.is_empty() {
        return Ok(());
    }
    Err(CliError::refused(
        format!("the new body is not what `{name}` takes: {}", problems.join("; ")),
        "change it, or leave --manifest out",
    ))
}

/// The lines that differ, with their marks.
fn difference(old: &Tree, new: &Tree, unredacted: bool) -> Vec<(char, String)> {
    let (old, new) =
        if unredacted { (old.clone(), new.clone()) } else { (old.redacted(None), new.redacted(Some(old))) };
    let (old, new) = (json::pretty(&old.to_json(), ""), json::pretty(&new.to_json(), ""));
    let lines = diff::lines(&old, &new).into_iter().map(|line| match line {
        Line::Same(line) => (' ', text::line(line, MAX_LINE)),
        Line::Gone(line) => ('-', text::line(line, MAX_LINE)),
        Line::New(line) => ('+', text::line(line, MAX_LINE)),
        Line::Skipped => (' ', "…".to_owned()),
    });
    lines.collect()
}

fn print(diff: &[(char, String)], out: &mut Output) {
    for (mark, line) in diff {
        let line = format!("{mark} {line}");
        let line = match mark {
            '-' => out.paint(Tone::Bad, &line),
            '+' => out.paint(Tone::Good, &line),
            _ => line,
        };
        out.line(&line);
    }
}

/// Asks on a terminal.
fn asked(out: &mut Output) -> bool {
    if !out.is_terminal() || !std::io::stdin().is_terminal() {
        return false;
    }
    out.write("put it back like this? [y/N] ");
    out.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
