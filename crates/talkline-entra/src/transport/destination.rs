//! Where a request may go.

use std::net::{IpAddr, Ipv4Addr};

use azure_core::http::Url;

/// One `scheme://host:port`, the only one that an exchange may talk to.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Lower case; an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) reach: Reach,
    pub(crate) takes_identity_header: bool,
}

/// Which addresses a destination's name may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This machine and its private network.
    Local,
    /// Any; the certificate tells who answers.
    Anywhere,
}

impl Destination {
    /// `None` when the URL is not `http` or `https`, has no host, or carries a user name.
    pub(crate) fn of(url: &Url, reach: Reach, takes_identity_header: bool) -> Option<Self> {
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        Some(Self {
            host: bare_host(url)?,
            port: url.port_or_known_default()?,
            tls,
            reach,
            takes_identity_header,
        })
    }

    /// Whether `url` leads here.
    pub(crate) fn is(&self, url: &Url) -> bool {
        Self::of(url, self.reach, self.takes_identity_header).is_some_and(|other| {
            other.host == self.host && other.port == self.port && other.tls == self.tls
        })
    }

    /// The `Host` header.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// `scheme://host:port` of a URL, without anything that may hold a secret.
pub(crate) fn describe(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

fn bare_host(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Some(bare.to_ascii_lowercase())
}

/// Loopback, link-local, private (RFC 1918, RFC 4193) and shared (RFC 6598) addresses.
pub(crate) fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_link_local() || v4.is_private() || is_shared(v4)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unique_local(),
    }
}

fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && (64..128).contains(&second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_scheme_host_and_port() {
        let listed = "https://login.microsoftonline.com/";
        let here = Destination::of(&listed.parse().unwrap(), Reach::Anywhere, false).unwrap();
        let check = |url: &str, good: bool| {
            assert_eq!(here.is(&url.parse().unwrap()), good, "{url}");
        };
        check(
            "https://login.microsoftonline.com/t/oauth2/v2.0/token",
            true,
        );
        check("https://LOGIN.microsoftonline.com:443/", true);
        check("http://login.microsoftonline.com/", false);
        check("https://login.microsoftonline.com:8443/", false);
        check("https://login.microsoftonline.com.evil.example/", false);
        check("https://evil.example/login.microsoftonline.com", false);
        check("https://a@login.microsoftonline.com/", false);
        check("https://login.microsoftonline.com@evil.example/", false);
        check("ftp://login.microsoftonline.com/", false);
    }

    #[test]
    fn the_host_header_names_an_unusual_port() {
        let check = |url: &str, expected: &str| {
            let here = Destination::of(&url.parse().unwrap(), Reach::Local, false).unwrap();
            assert_eq!(here.authority(), expected);
        };
        check("http://169.254.169.254/metadata", "169.254.169.254");
        check("http://localhost:42356/msi/token", "localhost:42356");
        check("http://[::1]:80/", "[::1]");
        check("https://[::1]:80/", "[::1]:80");
    }

    #[test]
    fn local_addresses() {
        let check = |address: &str, local: bool| {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        };
        check("127.0.0.1", true);
        check("169.254.169.254", true);
        check("10.1.2.3", true);
        check("172.31.0.1", true);
        check("172.32.0.1", false);
        check("100.64.0.1", true);
        check("100.128.0.1", false);
        check("8.8.8.8", false);
        check("0.0.0.0", false);
        check("::1", true);
        check("fe80::1", true);
        check("fd00::1", true);
        check("2001:db8::1", false);
        check("::ffff:8.8.8.8", false);
        check("::ffff:127.0.0.1", true);
    }
}
