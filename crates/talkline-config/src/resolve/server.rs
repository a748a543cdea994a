//! `server.*`.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::{
    Problem, Refusals, Server, TlsFiles,
    reader::{Found, Reader},
    shown::shown,
    tree::dotted,
};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Server> {
    let listen = listen(reader);
    let tls = tls(reader);
    if let (Some(listen), Some(None)) = (listen, &tls) {
        warn_of_plain_text(reader, listen);
    }
    let refusals = match reader.choice(&["server", "refusals"]) {
        Some(found) if found.value == "http" => Refusals::Http,
        _ => Refusals::InBand,
    };
    let allowed_origins = allowed_origins(reader);
    let allowed_hosts = allowed_hosts(reader);
    let trusted_proxies = trusted_proxies(reader);
    Some(Server {
        listen: listen?,
        tls: tls?,
        refusals,
        allowed_origins,
        allowed_hosts,
        trusted_proxies,
    })
}

fn listen(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let found = reader.text(&["server", "listen"])?;
    address(reader, &found)
}

/// An address with a port, as listeners have it.
pub(super) fn address(reader: &mut Reader<'_>, found: &Found<'_, String>) -> Option<SocketAddr> {
    let text = found.value.as_str();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(port) = text
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
    {
        return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    let hint = match port.parse::<u16>() {
        Ok(port) => {
            format!("write \"127.0.0.1:{port}\" for this machine only, \"0.0.0.0:{port}\" for all")
        }
        Err(_) => {
            "write an address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"".to_owned()
        }
    };
    let message = format!("{} is not an address with a port", shown(text));
    let problem = reader.at_value(Problem::error("listen.form", message).hint(hint), found);
    reader.problem(problem);
    None
}

/// Client keys and voices cross the network in clear, unless a front end terminates TLS.
fn warn_of_plain_text(reader: &mut Reader<'_>, listen: SocketAddr) {
    if listen.ip().is_loopback() {
        return;
    }
    let message = format!("{listen} is reached beyond this machine in plain text");
    let problem = Problem::warning("listen.plain-text", message)
        .hint("give server.tls, or make sure that only a front end with TLS reaches this address");
    let problem = match reader.found(&["server", "listen"]) {
        Some(found) => reader.at_value(problem, &found),
        None => problem.key("server.listen"),
    };
    reader.problem(problem);
}

/// `Some(None)` for plain text.
fn tls(reader: &mut Reader<'_>) -> Option<Option<TlsFiles>> {
    let cert = reader.text(&["server", "tls", "cert"]);
    let key = reader.text(&["server", "tls", "key"]);
    for found in [&cert, &key].into_iter().flatten() {
        if found.value.contains("-----BEGIN") || found.value.contains('\n') {
            let problem = Problem::error("tls.inline", "the PEM text itself stands here")
                .hint("write the path of the file that holds it");
            let problem = reader.at_value(problem, found);
            reader.problem(problem);
            return None;
        }
    }
    let (present, missing) = match (cert, key) {
        (Some(cert), Some(key)) => {
            return Some(Some(TlsFiles {
                cert: cert.value,
                key: key.value,
            }));
        }
        (None, None) => return Some(None),
        (Some(cert), None) => (cert, "key"),
        (None, Some(key)) => (key, "cert"),
    };
    if !reader.has_problem(&["server", "tls", missing]) {
        let problem = Problem::error(
            "tls.incomplete",
            format!("TLS needs server.tls.{missing} as well"),
        )
        .hint(format!(
            "write {missing} = \"PATH\" in [server.tls], or give --tls-{missing}"
        ));
        let problem = reader
            .at_key(problem, &present)
            .key(dotted(&["server", "tls", missing]));
        reader.problem(problem);
    }
    None
}

fn allowed_origins(reader: &mut Reader<'_>) -> Vec<String> {
    let path = ["server", "allowedOrigins"];
    let mut origins = Vec::new();
    for (origin, place) in reader.list(&path) {
        match web_origin(&origin) {
            Ok(origin) => origins.push(origin),
            Err(hint) => {
                let problem = Problem::error(
                    "origin.form",
                    format!("{} is not a web origin", shown(&origin)),
                )
                .key(dotted(&path))
                .hint(hint);
                let problem = reader.at(problem, &place);
                reader.problem(problem);
            }
        }
    }
    origins
}

/// Lower case, without a default port, as browsers send it (RFC 6454 section 6.1).
fn web_origin(text: &str) -> Result<String, &'static str> {
    const FORM: &str = "write it as the browser sends it, such as \"https://talk.example.com\"";
    if text.contains('*') {
        return Err("name each origin in full: a pattern would let pages in that you do not know");
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(FORM);
    };
    let scheme = scheme.to_ascii_lowercase();
    let rest = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
    let scheme_ok = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let host_ok = !rest.is_empty()
        && rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if !scheme_ok || !host_ok {
        return Err(FORM);
    }
    let default = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return Ok(format!("{scheme}://{rest}")),
    };
    Ok(format!(
        "{scheme}://{}",
        rest.strip_suffix(default).unwrap_or(&rest)
    ))
}

fn allowed_hosts(reader: &mut Reader<'_>) -> Vec<String> {
    let path = ["server", "allowedHosts"];
    let mut hosts = Vec::new();
    for (host, place) in reader.list(&path) {
        if host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
        {
            hosts.push(host.to_ascii_lowercase());
            continue;
        }
        let problem = Problem::error("host.form", format!("{} is not a host name", shown(&host)))
            .key(dotted(&path))
            .hint("write host or host:port, without scheme, path or `*`");
        let problem = reader.at(problem, &place);
        reader.problem(problem);
    }
    hosts
}

fn trusted_proxies(reader: &mut Reader<'_>) -> Vec<IpNet> {
    let path = ["server", "trustedProxies"];
    let mut networks = Vec::new();
    for (text, place) in reader.list(&path) {
        let network = text.parse().ok().or_else(|| {
            text.parse()
                .ok()
                .map(|address: std::net::IpAddr| address.into())
        });
        let problem = match network {
            Some(network) if !is_everybody(&network) => {
                networks.push(network.trunc());
                continue;
            }
            Some(_) => Problem::error(
                "proxy.everybody",
                "every address on the internet would be believed",
            )
            .hint("name the network that the front end connects from, such as \"10.0.0.0/24\""),
            None => Problem::error("proxy.form", format!("{} is not a network", shown(&text)))
                .hint("write an address or a network, such as \"10.0.0.7\" or \"10.0.0.0/24\""),
        };
        let problem = reader.at(problem.key(dotted(&path)), &place);
        reader.problem(problem);
    }
    networks
}

fn is_everybody(network: &IpNet) -> bool {
    network.prefix_len() == 0
}
