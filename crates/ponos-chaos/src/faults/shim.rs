//! The library between a child process and its C library: `shim/shim.c`, built when it is needed.
//!
//! It sees what a process does to one directory, can take the disk's space away, and can set the wall clock wrong.
//! It is C and not Rust because it stands in for functions of the C library, and no Rust here is unsafe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOURCE: &str = include_str!("../../shim/shim.c");

/// A built shim with its controls, in a directory of its own.
#[derive(Debug)]
pub(crate) struct Shim {
    library: PathBuf,
    watched: PathBuf,
    only: Option<String>,
    trace: Option<PathBuf>,
    full: PathBuf,
    clock: PathBuf,
}

impl Shim {
    /// Builds it in `directory`, to watch `watched`. Both must exist, and the first must not lie below the second.
    pub(crate) fn build(directory: &Path, watched: &Path) -> io::Result<Self> {
        let directory = fs::canonicalize(directory)?;
        let source = directory.join("shim.c");
        let library = directory.join("shim.so");
        fs::write(&source, SOURCE)?;
        let built = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("no C compiler `cc` for the shim: {error}"))
            })?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr).into_owned();
            return Err(io::Error::other(format!("the shim was not built: {said}")));
        }
        let clock = directory.join("clock");
        fs::write(&clock, 0_i64.to_ne_bytes())?;
        let full = directory.join("full");
        Ok(Self { library, watched: fs::canonicalize(watched)?, only: None, trace: None, full, clock })
    }

    /// Watches only files whose path below the directory begins so.
    #[must_use]
    pub(crate) fn only(mut self, begins: &str) -> Self {
        self.only = Some(begins.to_owned());
        self
    }

    /// From now on children append what they do to this file, which must not be below the watched directory.
    #[must_use]
    pub(crate) fn traced(mut self, trace: &Path) -> Self {
        self.trace = Some(trace.to_owned());
        self
    }

    /// The environment that puts the shim under a process.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let set = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
        let mut env = vec![
            set("LD_PRELOAD", &self.library),
            set("PONOS_SHIM_DIR", &self.watched),
            set("PONOS_SHIM_FULL", &self.full),
            set("PONOS_SHIM_CLOCK", &self.clock),
        ];
        env.extend(self.only.as_ref().map(|only| ("PONOS_SHIM_ONLY".to_owned(), only.clone())));
        env.extend(self.trace.as_ref().map(|trace| set("PONOS_SHIM_TRACE", trace)));
        env
    }

    /// Takes the disk's space away, or gives it back.
    pub(crate) fn set_full(&self, full: bool) -> io::Result<()> {
        if full { fs::write(&self.full, "") } else { fs::remove_file(&self.full) }
    }

    /// Sets the wall clock of the children ahead of the machine's.
    pub(crate) fn clock_ahead(&self, by: Duration) -> io::Result<()> {
        self.set_clock(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Sets the wall clock of the children behind the machine's.
    pub(crate) fn clock_behind(&self, by: Duration) -> io::Result<()> {
        self.set_clock(-i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
    }

    /// In one write over what is there: children have it mapped.
    fn set_clock(&self, nanos: i64) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(&self.clock)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &nanos.to_ne_bytes(), 0)
    }
}
