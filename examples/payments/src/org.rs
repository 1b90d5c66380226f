use ponos::prelude::*;

/// The longest name of an organisation, in bytes.
const MAX_LEN: usize = 64;

/// The name of an organisation: lowercase letters, digits and hyphens.
///
/// It is checked where it comes in, by message or by HTTP, so it can stand in an address or in a URL's path.
#[data]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(try_from = "String", into = "String")]
pub struct Org(#[schemars(regex(pattern = "^[a-z0-9-]{1,64}$"))] String);

/// A text that is no organisation's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidOrg;

impl std::fmt::Display for InvalidOrg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an organisation is named by 1 to {MAX_LEN} lowercase letters, digits and hyphens")
    }
}

impl std::error::Error for InvalidOrg {}

impl Org {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Org {
    type Error = InvalidOrg;

    fn try_from(name: String) -> Result<Self, InvalidOrg> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=MAX_LEN).contains(&name.len()) && name.bytes().all(fits) {
            Ok(Self(name))
        } else {
            Err(InvalidOrg)
        }
    }
}

impl From<Org> for String {
    fn from(org: Org) -> Self {
        org.0
    }
}

impl std::fmt::Display for Org {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_stand_in_a_path_or_is_refused() {
        assert_eq!(Org::try_from("acme-2".to_owned()).unwrap().as_str(), "acme-2");
        for name in ["", "Acme", "a/../b", "a b", "a\n", &"a".repeat(65)] {
            assert_eq!(Org::try_from(name.to_owned()), Err(InvalidOrg), "{name}");
        }
    }
}
