//! The credentials for a bucket, in the format of AWS's shared credentials file; pure.

use std::fmt;

/// The credentials for a bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) key_id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.key_id)
    }
}

/// A reason not to use credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A part is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The file has several sections.
    #[error("it has several sections; leave the one of the bucket")]
    Sections,
}

/// The parts of credentials, by their names in files. Variables have the same names in capitals.
const NAMES: [&str; 3] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
];

impl Credentials {
    /// Parses a credentials file of AWS with one section, or without its header.
    ///
    /// # Errors
    /// A part is missing, or there are several sections.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let lines = || text.lines().map(str::trim);
        if lines().filter(|line| line.starts_with('[')).count() > 1 {
            return Err(CredentialsError::Sections);
        }
        let pairs = lines().filter_map(|line| line.split_once('='));
        let pairs: Vec<_> = pairs.map(|(name, it)| (name.trim(), it.trim())).collect();
        Self::from_parts(|wanted| {
            let found = pairs.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    /// Takes the credentials from variables of the environment.
    ///
    /// # Errors
    /// A variable is missing.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, CredentialsError> {
        Self::from_parts(|name| variable(&name.to_uppercase()))
    }

    fn from_parts(part: impl Fn(&str) -> Option<String>) -> Result<Self, CredentialsError> {
        let part = |name: &'static str| {
            let value = part(name).filter(|it| !it.is_empty());
            value.ok_or(CredentialsError::Missing(name))
        };
        let [key_id, secret, token] = NAMES;
        Ok(Self {
            key_id: part(key_id)?,
            secret: part(secret)?,
            token: part(token).ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_section() {
        let text = "[default]\naws_access_key_id = AK\naws_secret_access_key=s=cret\n";
        let credentials = Credentials::parse(text).unwrap();
        assert_eq!(
            (&*credentials.key_id, &*credentials.secret),
            ("AK", "s=cret")
        );
        assert_eq!(credentials.token, None);
        assert_eq!(
            Credentials::parse(&format!("{text}[other]\n")),
            Err(CredentialsError::Sections)
        );
        assert_eq!(
            Credentials::parse("aws_access_key_id = AK\naws_secret_access_key =\n"),
            Err(CredentialsError::Missing("aws_secret_access_key"))
        );
    }

    #[test]
    fn variables_have_the_names_of_aws() {
        let variable = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("AK".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
            "AWS_SESSION_TOKEN" => Some("token".to_owned()),
            _ => None,
        };
        let credentials = Credentials::from_variables(variable).unwrap();
        assert_eq!(credentials.token.as_deref(), Some("token"));
        assert!(Credentials::from_variables(|_| None).is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let text = "aws_access_key_id = AK\naws_secret_access_key = hidden\n";
        let shown = format!("{:?}", Credentials::parse(text).unwrap());
        assert_eq!(shown, "Credentials(AK)");
    }
}
