//! Who may ask: whoever has the token.

use std::path::Path;

use ponos::Secret;
use sha2::{Digest as _, Sha256};

use crate::error::CliError;
use crate::output;

/// The variable with the token.
const VARIABLE: &str = "PONOS_API_TOKEN";

/// The fewest characters that are not guessed.
const SHORTEST: usize = 16;

/// Bytes of a random one.
const RANDOM: usize = 24;

/// The hash of a token: the token itself is not kept.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token of the file, else of the variable, else a random one, which is given back to be told once.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the token is too short or cannot stand in a header.
    pub(super) fn find(file: Option<&Path>) -> Result<(Self, Option<Secret>), CliError> {
        if let Some(file) = file {
            let shown = file.display();
            let text: Secret = std::fs::read_to_string(file).map(Secret::from).map_err(|error| {
                CliError::usage(
                    format!("the token's file `{shown}` cannot be read: {error}"),
                    "name a file that holds the token in its only line",
                )
            })?;
            let token = Self::checked(text.expose().trim(), &format!("in `{shown}`"))?;
            match others(file) {
                Others::Write => {
                    return Err(CliError::usage(
                        format!("everybody may write to `{shown}`, and so choose the token"),
                        format!("`chmod 600 {shown}`, and put another token into it"),
                    ));
                }
                // Containers are given their secrets so.
                Others::Read => output::note(&format!(
                    "everybody on this machine may read `{shown}`: `chmod 600 {shown}`"
                )),
                Others::Nothing => {}
            }
            return Ok((token, None));
        }
        if let Some(text) = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()).map(Secret::from) {
            return Ok((Self::checked(text.expose(), &format!("in {VARIABLE}"))?, None));
        }
        let made = random()?;
        Ok((Self::of(made.expose()), Some(made)))
    }

    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// The token is never part of an error.
    fn checked(text: &str, place: &str) -> Result<Self, CliError> {
        const MAKE_ONE: &str = "make one: `openssl rand -hex 24 > FILE`, and `chmod 600 FILE`";
        if text.len() < SHORTEST {
            let problem = format!("the token {place} is shorter than {SHORTEST} characters");
            return Err(CliError::usage(problem, MAKE_ONE));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = format!("the token {place} has blanks, or characters that are not ASCII");
            return Err(CliError::usage(problem, MAKE_ONE));
        }
        Ok(Self::of(text))
    }

    /// Whether it is this one. Takes as long for any other: what is compared are hashes, and all of their bytes.
    pub(super) fn is(&self, given: &str) -> bool {
        let given = Self::of(given);
        self.0.iter().zip(given.0).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// What those may do with a file who neither own it nor belong to its group.
enum Others {
    Nothing,
    Read,
    Write,
}

#[cfg(unix)]
fn others(file: &Path) -> Others {
    let mode = std::fs::metadata(file).map_or(0, |found| std::os::unix::fs::MetadataExt::mode(&found));
    match (mode & 0o002 != 0, mode & 0o004 != 0) {
        (true, _) => Others::Write,
        (false, true) => Others::Read,
        (false, false) => Others::Nothing,
    }
}

#[cfg(not(unix))]
fn others(_: &Path) -> Others {
    Others::Nothing
}

fn random() -> Result<Secret, CliError> {
    use std::fmt::Write as _;
    let mut bytes = [0; RANDOM];
    getrandom::fill(&mut bytes).map_err(|error| {
        CliError::refused(
            format!("this machine gives no random bytes: {error}"),
            format!("name a token with --token-file or {VARIABLE}"),
        )
    })?;
    let mut text = String::with_capacity(2 * RANDOM);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_the_token() {
        let token = Token::checked("correct horse battery".replace(' ', "-").as_str(), "here").unwrap();
        assert!(token.is("correct-horse-battery"));
        for other in ["", "correct-horse-batter", "correct-horse-battery ", "Correct-horse-battery"] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused_and_not_told() {
        for bad in ["", "fifteen-letters", "sixteen letters!!", "sixteen-lettérs-and-more"] {
            let error = Token::checked(bad, "in a test").unwrap_err();
            assert_eq!(error.exit(), crate::error::Exit::Usage, "{bad}");
            assert!(bad.is_empty() || !error.in_one_line().contains(bad), "{bad}");
        }
    }

    #[test]
    fn random_tokens_are_long_and_never_the_same() {
        let (one, two) = (random().unwrap(), random().unwrap());
        assert_eq!((one.expose().len(), one.expose() == two.expose()), (48, false));
    }
}
