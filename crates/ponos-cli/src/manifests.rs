//! Manifests as the verbs get them: for now from files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use ponos::core::manifest::Manifest;

use crate::error::CliError;

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
