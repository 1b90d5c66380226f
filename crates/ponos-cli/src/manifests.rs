//! Manifests as the verbs get them: from files, or from what services told when they started.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ponos::Secret;
use ponos::core::manifest::Manifest;
use ponos::core::name::QueueName;

use crate::broker::Session;
use crate::error::CliError;
use crate::view::{self, View};

/// What helps whoever has no manifest.
pub(crate) const MAKE_ONE: &str =
    "a service prints its manifest with `PONOS_MANIFEST=1`: `PONOS_MANIFEST=1 service > FILE`";

/// A manifest, and where it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) source: String,
    pub(crate) manifest: Manifest,
}

/// Reads manifests from files; `-` is the standard input.
///
/// # Errors
///
/// When there is none, a file cannot be read, or it holds no manifest.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Vec<Loaded>, CliError> {
    if paths.is_empty() {
        return Err(CliError::usage("there is no manifest to look at", MAKE_ONE));
    }
    paths.iter().map(|path| read(path)).collect()
}

/// Reads manifests from files, or takes those that services told of themselves where no file is named.
///
/// # Errors
///
/// When a file cannot be read or holds no manifest, the broker does not answer, or it knows none.
pub(crate) async fn files_or_records(
    paths: &[PathBuf],
    url: Option<&Secret>,
) -> Result<Vec<Loaded>, CliError> {
    if !paths.is_empty() {
        return load(paths);
    }
    let session = Session::open(url).await.map_err(|error| error.or(OR_FILES))?;
    let view = View::open(&session).await;
    let found = view.and_then(|view| some_of_records(&view, &session));
    session.close().await;
    found
}

/// What helps whoever has no broker.
const OR_FILES: &str =
    "or name the manifests' files, which a service prints with `PONOS_MANIFEST=1 service > FILE`";

/// What services told of themselves when they started; of each application the newest.
///
/// # Errors
///
/// When the files cannot be read.
pub(crate) fn of_records(view: &View) -> Result<Vec<Loaded>, CliError> {
    let mut newest: BTreeMap<String, Loaded> = BTreeMap::new();
    // By application, the newest first; one of a later form of manifests cannot be read here.
    for known in view.model.manifests().map_err(view::broken)? {
        if newest.contains_key(known.origin.app.as_str()) {
            continue;
        }
        if let Ok(manifest) = Manifest::from_json(&known.text) {
            let version = known.origin.version.as_deref().unwrap_or("without a version");
            let source = format!("{} {version}, as it told when it started", known.origin.app);
            newest.insert(known.origin.app.to_string(), Loaded { source, manifest });
        }
    }
    Ok(newest.into_values().collect())
}

/// The same, of which there must be some.
///
/// # Errors
///
/// When there are none, or the files cannot be read.
pub(crate) fn some_of_records(view: &View, session: &Session) -> Result<Vec<Loaded>, CliError> {
    let found = of_records(view)?;
    if !found.is_empty() {
        return Ok(found);
    }
    let since = if session.is_rabbitmq() { " after the first look, such as this one" } else { "" };
    Err(CliError::refused(
        format!("{} knows no manifest", session.broker().name()),
        format!("a service tells its own when it starts{since}: start it (again), {OR_FILES}"),
    ))
}

/// Which queues share what they depend on, by application and dependency.
pub(crate) fn dependents(manifests: &[Loaded]) -> BTreeMap<(String, String), Vec<QueueName>> {
    let mut dependents: BTreeMap<(String, String), Vec<QueueName>> = BTreeMap::new();
    for Loaded { manifest, .. } in manifests {
        let reactions = manifest.reactions.iter().map(|reaction| (&reaction.queue, &reaction.policy));
        let tasks = manifest.tasks.iter().map(|task| (&task.queue, &task.policy));
        for (queue, policy) in reactions.chain(tasks) {
            if let (Some(on), Ok(queue)) = (&policy.depends_on, QueueName::parse(queue)) {
                dependents.entry((manifest.app.clone(), on.clone())).or_default().push(queue);
            }
        }
    }
    dependents
}

fn read(path: &Path) -> Result<Loaded, CliError> {
    let source = path.display().to_string();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| {
        CliError::usage(format!("the manifest `{source}` cannot be read: {error}"), MAKE_ONE)
    })?;
    let manifest = Manifest::from_json(&text)
        .map_err(|error| CliError::usage(format!("`{source}`: {error}"), MAKE_ONE))?;
    Ok(Loaded { source, manifest })
}

/// Writes what a verb made of manifests to a file.
///
/// # Errors
///
/// When it cannot be written.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(file, text).map_err(|error| {
        CliError::refused(
            format!("`{}` cannot be written: {error}", file.display()),
            "name another file with --out, or leave it out for the standard output",
        )
    })
}
