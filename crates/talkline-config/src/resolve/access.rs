//! `clients.defaults` and `clients.access.*`: what clients may do.

use std::{collections::BTreeSet, sync::Arc};

use talkline_auth::{AllowedRoutes, ClientIdentity, ClientLimits};

use crate::{Problem, Routes, reader::Reader, shown::shown, tree::dotted};

/// Reads what clients may do, by their names.
pub(super) struct Accesses {
    defaults: Access,
}

/// What one table says.
#[derive(Clone, Default)]
struct Access {
    routes: Option<BTreeSet<String>>,
    policy: Option<String>,
    limits: ClientLimits,
}

impl Accesses {
    pub(super) fn new(reader: &mut Reader<'_>, routes: Option<&Routes>) -> Self {
        Self {
            defaults: read(reader, &["clients", "defaults"], routes),
        }
    }

    /// The identity of this name.
    pub(super) fn identity(
        &self,
        reader: &mut Reader<'_>,
        name: &str,
        routes: Option<&Routes>,
    ) -> Arc<ClientIdentity> {
        let own = read(reader, &["clients", "access", name], routes);
        let defaults = &self.defaults;
        let allowed = own.routes.or_else(|| defaults.routes.clone());
        Arc::new(ClientIdentity {
            name: name.to_owned(),
            routes: allowed.map_or(AllowedRoutes::All, AllowedRoutes::Only),
            limits: or(own.limits, &defaults.limits),
            policy: own.policy.or_else(|| defaults.policy.clone()),
        })
    }
}

/// Reports what is said about clients that do not exist.
pub(super) fn check_names(reader: &mut Reader<'_>, known: &BTreeSet<String>) {
    let Some(table) = reader.table(&["clients", "access"]) else {
        return;
    };
    for entry in &table.entries {
        if known.contains(&entry.key) {
            continue;
        }
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = match crate::keys::suggestion(&entry.key, &names) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if names.is_empty() => "configure clients.keys or clients.oidc first".to_owned(),
            None => format!("there are {}", names.join(", ")),
        };
        let message = format!("no client is called {}", shown(&entry.key));
        let problem = Problem::error("access.unknown-client", message)
            .key("clients.access")
            .hint(hint);
        let problem = reader.at(problem, &entry.key_place);
        reader.problem(problem);
    }
}

fn read(reader: &mut Reader<'_>, path: &[&str], routes: Option<&Routes>) -> Access {
    if reader.table(path).is_none() {
        return Access::default();
    }
    let mut table = Reading { reader, path };
    Access {
        routes: table.routes(routes),
        policy: table.policy(),
        limits: ClientLimits {
            sessions_max: table.count("maxSessions").map(small),
            starts_per_minute: table.count("startsPerMinute").map(small),
            session_duration_max: table.there("maxSessionDuration").map(|path| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                table.reader.duration(&path)
            }),
            frames_per_second: table.count("framesPerSecond"),
            bytes_per_second: table.count("bytesPerSecond"),
            responses_per_session: table.count("responsesPerSession"),
            responses_per_day: table.count("responsesPerDay"),
            tokens_per_session: table.count("tokensPerSession"),
            tokens_per_day: table.count("tokensPerDay"),
        },
    }
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

struct Reading<'r, 't, 'p> {
    reader: &'r mut Reader<'t>,
    path: &'p [&'p str],
}

impl Reading<'_, '_, '_> {
    /// The path of a key that is there.
    fn there(&self, key: &str) -> Option<Vec<String>> {
        let path: Vec<String> = self
            .path
            .iter()
            .chain([&key])
            .map(|it| (*it).to_owned())
            .collect();
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        self.reader.found(&parts).is_some().then_some(path)
    }

    fn count(&mut self, key: &str) -> Option<u64> {
        let path = self.there(key)?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        Some(self.reader.amount(&path))
    }

    fn routes(&mut self, routes: Option<&Routes>) -> Option<BTreeSet<String>> {
        let path = self.there("routes")?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let written = self.reader.list(&path);
        let mut allowed = BTreeSet::new();
        for (alias, place) in written {
            if let Some(routes) = routes
                && let Err(unknown) = routes.resolve(Some(&alias))
                && routes
                    .resolve(None)
                    .is_ok_and(|default| default.alias != alias)
            {
                let message = format!("no model is called {}", shown(&alias));
                let problem = Problem::error("access.unknown-route", message)
                    .key(dotted(&path))
                    .hint(format!(
                        "clients may ask for {}",
                        unknown.available.join(", ")
                    ));
                let problem = self.reader.at(problem, &place);
                self.reader.problem(problem);
            }
            allowed.insert(alias);
        }
        Some(allowed)
    }

    fn policy(&mut self) -> Option<String> {
        let path = self.there("policy")?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        Some(self.reader.text(&path)?.value)
    }
}

/// What is left out is taken from the defaults.
fn or(own: ClientLimits, defaults: &ClientLimits) -> ClientLimits {
    ClientLimits {
        sessions_max: own.sessions_max.or(defaults.sessions_max),
        starts_per_minute: own.starts_per_minute.or(defaults.starts_per_minute),
        session_duration_max: own.session_duration_max.or(defaults.session_duration_max),
        frames_per_second: own.frames_per_second.or(defaults.frames_per_second),
        bytes_per_second: own.bytes_per_second.or(defaults.bytes_per_second),
        responses_per_session: own.responses_per_session.or(defaults.responses_per_session),
        responses_per_day: own.responses_per_day.or(defaults.responses_per_day),
        tokens_per_session: own.tokens_per_session.or(defaults.tokens_per_session),
        tokens_per_day: own.tokens_per_day.or(defaults.tokens_per_day),
    }
}
