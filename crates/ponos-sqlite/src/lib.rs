//! The embedded broker of Ponos: one SQLite file, many processes, nothing to install.
