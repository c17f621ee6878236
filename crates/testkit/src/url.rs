//! The little of a connection URL that the testkit itself needs.

use crate::error::KitError;

/// `postgresql://user@host:port/database`, with whatever follows a question mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) query: Option<String>,
}

impl ServerUrl {
    /// Reads a URL. Passwords are dropped: test servers trust everyone on 127.0.0.1.
    pub(crate) fn parse(text: &str) -> Result<Self, KitError> {
        let wrong = |detail: &str| KitError::new(format!("read the URL {text:?}"), detail);
        let rest = text
            .strip_prefix("postgresql://")
            .or_else(|| text.strip_prefix("postgres://"))
            .ok_or_else(|| wrong("it does not start with postgresql://"))?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, address) = authority.rsplit_once('@').unwrap_or(("postgres", authority));
        let user = user.split(':').next().unwrap_or(user).to_owned();
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
        let port = port.parse().map_err(|_| wrong("the port is not a number"))?;
        let database = if database.is_empty() { user.clone() } else { database.to_owned() };
        Ok(Self { user, host: host.to_owned(), port, database, query })
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, host, port, database, query } = self;
        write!(f, "postgresql://{user}@{host}:{port}/{database}")?;
        query.iter().try_for_each(|query| write!(f, "?{query}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_survives_reading_and_writing() {
        let text = "postgresql://ada@127.0.0.1:6543/orders?sslmode=disable";
        assert_eq!(ServerUrl::parse(text).expect("it is a URL").to_string(), text);
    }

    #[test]
    fn what_a_url_leaves_out_has_libpqs_defaults() {
        let url = ServerUrl::parse("postgres://ada:secret@localhost").expect("it is a URL");
        assert_eq!(url.to_string(), "postgresql://ada@localhost:5432/ada");
    }
}
