//! Where the read model of a broker lies: beside an SQLite file, else in this user's state directory.

use std::path::PathBuf;

use crate::broker::Place;
use crate::error::CliError;

/// Names another directory for the read model.
pub(crate) const VIEW_VARIABLE: &str = "PONOS_VIEW";

/// The directory for the read model of a broker.
///
/// # Errors
///
/// When there is no place for it.
pub(super) fn of(place: &Place) -> Result<PathBuf, CliError> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(directory) = named(VIEW_VARIABLE) {
        return Ok(directory);
    }
    match place {
        Place::File(file) => {
            let mut beside = file.as_os_str().to_owned();
            beside.push(".view");
            Ok(PathBuf::from(beside))
        }
        Place::Server(name) => {
            let state =
                named("XDG_STATE_HOME").or_else(|| named("HOME").map(|home| home.join(".local/state")));
            let state = state.ok_or_else(|| {
                CliError::refused(
                    "there is no place for what is read from this broker: neither HOME nor XDG_STATE_HOME is set",
                    format!("name a directory with {VIEW_VARIABLE}"),
                )
            })?;
            Ok(state.join("ponos").join(directory_of(name)))
        }
    }
}

/// A server's name as that of a directory. Two names never share one: what is not plain is written as its number.
fn directory_of(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => out.push(char::from(byte)),
            b'.' if !out.is_empty() => out.push('.'),
            byte => out.push_str(&format!("_{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_name_is_one_directory_and_no_way_out() {
        assert_eq!(directory_of("rabbitmq:localhost:5672/demo"), "rabbitmq_3alocalhost_3a5672_2fdemo");
        assert_eq!(directory_of("../x"), "_2e._2fx");
        assert_ne!(directory_of("a/b"), directory_of("a_2fb"));
    }
}
