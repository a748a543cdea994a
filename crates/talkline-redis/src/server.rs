//! Where the server is, and who signs in there.

use std::{fmt, sync::Arc};

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use rustls::ClientConfig;
use talkline_auth::Secret;

/// A Redis or Valkey server. `Debug` and `Display` show host and port alone.
#[derive(Clone)]
pub struct Server {
    host: String,
    port: u16,
    uses_tls: bool,
    tls: Option<Arc<ClientConfig>>,
    settings: RedisConnectionInfo,
}

/// Why a URL names no server. Holds nothing of the URL, which has a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// It is no URL of a Redis server.
    #[error("not a URL of the form redis://[user[:password]@]host[:port][/database]")]
    NotAUrl,
    /// A query or a fragment, which would change how the server is reached.
    #[error("a query or a fragment is not supported in the URL of a Redis server")]
    Extras,
    /// `rediss` or `valkeys`, and no TLS configuration was given.
    #[error("the URL asks for TLS, but no TLS configuration was given")]
    NoTls,
}

impl Server {
    /// Reads `redis://[user[:password]@]host[:port][/database]`; `rediss` for TLS, and `valkey` and
    /// `valkeys` alike. `tls` says how certificates are checked.
    ///
    /// # Errors
    ///
    /// [`ServerError`].
    pub fn parse(url: &Secret, tls: Option<Arc<ClientConfig>>) -> Result<Self, ServerError> {
        let (scheme, rest) = url
            .expose()
            .trim()
            .split_once("://")
            .ok_or(ServerError::NotAUrl)?;
        let uses_tls = match scheme.to_ascii_lowercase().as_str() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(ServerError::NotAUrl),
        };
        if rest.contains(['?', '#']) {
            return Err(ServerError::Extras);
        }
        if uses_tls && tls.is_none() {
            return Err(ServerError::NoTls);
        }
        // The library reads the parts; which of them TLS is about is decided here.
        let info = format!("redis://{rest}")
            .into_connection_info()
            .map_err(|_| ServerError::NotAUrl)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(ServerError::NotAUrl);
        };
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: *port,
            uses_tls,
            tls: tls.filter(|_| uses_tls),
            settings,
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn tls(&self) -> Option<&Arc<ClientConfig>> {
        self.tls.as_ref()
    }

    pub(crate) fn settings(&self) -> &RedisConnectionInfo {
        &self.settings
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.uses_tls { "rediss" } else { "redis" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<&str, ServerError>) {
        let server = Server::parse(&Secret::new(url), None);
        let shown = server.map(|server| server.to_string());
        assert_eq!(shown.as_deref().map_err(|error| *error), expected, "{url}");
    }

    #[test]
    fn urls() {
        check("redis://cache", Ok("redis://cache:6379"));
        check("valkey://cache:7000/2", Ok("redis://cache:7000"));
        check("REDIS://user:CANARY@cache:1", Ok("redis://cache:1"));
        check("redis://:CANARY@127.0.0.1", Ok("redis://127.0.0.1:6379"));
        check("redis://[::1]:6380", Ok("redis://[::1]:6380"));
        check("rediss://cache", Err(ServerError::NoTls));
        check("redis://cache/#insecure", Err(ServerError::Extras));
        check("redis://cache/?protocol=resp3", Err(ServerError::Extras));
        for no_url in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://c:99999",
            "redis://c/x",
            "redis+unix:///tmp/s",
        ] {
            check(no_url, Err(ServerError::NotAUrl));
        }
    }

    #[test]
    fn nothing_shows_the_password() {
        let server = Server::parse(&Secret::new("redis://u:CANARY@cache"), None).unwrap();
        assert!(!format!("{server:?} {server}").contains("CANARY"));
        assert_eq!(server.settings().password(), Some("CANARY"));
    }
}
