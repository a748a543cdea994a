//! Which of our crates may use which, and which of them are pure.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Violation;
use crate::workspace::{Metadata, Package};

/// One row of the table in ARCHITECTURE.md.
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    /// Our crates that it may depend on.
    pub(crate) may_use: &'static [&'static str],
    pub(crate) kind: Kind,
}

/// Whether a crate may touch the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Decides only: time, randomness and environment are arguments.
    Pure,
    /// Reads clocks, files, sockets.
    Io,
    /// Starts processes; no part of the product.
    Automation,
}

/// The house, from the ground up: a crate may use rows above its own only.
pub(crate) const TABLE: &[Layer] = &[
    Layer {
        name: "talkline-auth",
        may_use: &[],
        kind: Kind::Pure,
    },
    Layer {
        name: "talkline-dialect",
        may_use: &["talkline-auth"],
        kind: Kind::Pure,
    },
    Layer {
        name: "talkline-frame",
        may_use: &[],
        kind: Kind::Pure,
    },
    Layer {
        name: "talkline-session",
        may_use: &["talkline-dialect", "talkline-frame"],
        kind: Kind::Pure,
    },
    Layer {
        name: "talkline-config",
        may_use: &["talkline-auth", "talkline-dialect", "talkline-session"],
        kind: Kind::Pure,
    },
    Layer {
        name: "talkline-relay",
        may_use: &["talkline-frame", "talkline-session"],
        kind: Kind::Io,
    },
    Layer {
        name: "talkline-entra",
        may_use: &["talkline-auth"],
        kind: Kind::Io,
    },
    Layer {
        name: "talkline-tls",
        may_use: &[],
        kind: Kind::Io,
    },
    Layer {
        name: "talkline-gateway",
        may_use: &[
            "talkline-auth",
            "talkline-config",
            "talkline-dialect",
            "talkline-frame",
            "talkline-relay",
            "talkline-session",
            "talkline-tls",
        ],
        kind: Kind::Io,
    },
    Layer {
        name: "talkline-redis",
        may_use: &["talkline-auth"],
        kind: Kind::Io,
    },
    Layer {
        name: "talkline-sim",
        may_use: &["talkline-dialect", "talkline-frame"],
        kind: Kind::Io,
    },
    Layer {
        name: "talkline",
        may_use: &[
            "talkline-auth",
            "talkline-config",
            "talkline-entra",
            "talkline-gateway",
            "talkline-redis",
            "talkline-sim",
        ],
        kind: Kind::Io,
    },
    Layer {
        name: "xtask",
        may_use: &[],
        kind: Kind::Automation,
    },
];

/// The far end that anybody's tests may talk to.
const TEST_PEER: &str = "talkline-sim";

/// What a pure crate must not reach through any number of normal dependencies.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper-util",
    "rustls",
    "tokio-rustls",
    "mio",
    "socket2",
];

/// Every dependency on one of our crates stands in the table.
pub(crate) fn dependencies(table: &[Layer], members: &[&Package]) -> Vec<Violation> {
    let ours: HashSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut violations = Vec::new();
    for member in members {
        let Some(layer) = table.iter().find(|layer| layer.name == member.name) else {
            violations.push(Violation::new(
                &member.name,
                "has no row in the dependency table; give it one in ARCHITECTURE.md and in xtask",
            ));
            continue;
        };
        for dependency in &member.dependencies {
            let name = dependency.name.as_str();
            let only_in_tests = dependency.kind.as_deref() == Some("dev");
            let allowed = layer.may_use.contains(&name) || (only_in_tests && name == TEST_PEER);
            if ours.contains(name) && !allowed {
                violations.push(Violation::new(
                    &member.name,
                    format!("may not use {name}; it may use {:?}", layer.may_use),
                ));
            }
        }
    }
    violations
}

/// No pure crate reaches an I/O crate; the violation shows the way there.
pub(crate) fn purity(table: &[Layer], metadata: &Metadata) -> Vec<Violation> {
    let names: HashMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let mut violations = Vec::new();
    for member in metadata.members() {
        let pure = table
            .iter()
            .any(|row| row.name == member.name && row.kind == Kind::Pure);
        if !pure {
            continue;
        }
        if let Some(way) = way_to_impure(metadata, &names, &member.id) {
            violations.push(Violation::new(
                &member.name,
                format!("is pure, yet reaches I/O: {}", way.join(" -> ")),
            ));
        }
    }
    violations
}

/// ARCHITECTURE.md shows the same table as is enforced here.
pub(crate) fn architecture(table: &[Layer], page: &str) -> Vec<Violation> {
    let shown: Vec<Row> = page.lines().filter_map(Row::parse).collect();
    let mut violations = Vec::new();
    for (at, layer) in table.iter().enumerate() {
        let Some(row) = shown.iter().find(|row| row.name == layer.name) else {
            violations.push(Violation::new(
                "ARCHITECTURE.md",
                format!("the dependency table has no row for `{}`", layer.name),
            ));
            continue;
        };
        if row.pure != (layer.kind == Kind::Pure) {
            violations.push(Violation::new(
                "ARCHITECTURE.md",
                format!("`{}` is {:?} in xtask", layer.name, layer.kind),
            ));
        }
        if row.may_use(&table[..at]) != layer.may_use.iter().copied().collect() {
            violations.push(Violation::new(
                "ARCHITECTURE.md",
                format!("`{}` may use {:?} in xtask", layer.name, layer.may_use),
            ));
        }
    }
    violations
}

/// One row of the table, as the page has it: "| `name` | I/O | may use |".
struct Row<'a> {
    name: &'a str,
    pure: bool,
    uses: &'a str,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Row<'a>> {
        let cells: Vec<&str> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let [name, io, uses] = cells[..] else {
            return None;
        };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        Some(Row {
            name,
            pure: io.starts_with("pure"),
            uses,
        })
    }

    /// The crates named in the last cell: `–`, a list, or `all but` a list of the rows above.
    fn may_use(&self, above: &[Layer]) -> HashSet<&'static str> {
        let names = |list: &str| -> HashSet<String> {
            list.split(',')
                .map(|name| format!("talkline-{}", name.trim()))
                .collect()
        };
        let above = above.iter().map(|layer| layer.name);
        match self.uses.strip_prefix("all but ") {
            Some(list) => {
                let left_out = names(list);
                above.filter(|name| !left_out.contains(*name)).collect()
            }
            None => {
                let listed = names(self.uses);
                above.filter(|name| listed.contains(*name)).collect()
            }
        }
    }
}

/// The shortest way from a package to an impure one, over normal dependencies.
fn way_to_impure<'a>(
    metadata: &'a Metadata,
    names: &HashMap<&'a str, &'a str>,
    from: &'a str,
) -> Option<Vec<&'a str>> {
    let mut came_from: HashMap<&str, &str> = HashMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(id) = queue.pop_front() {
        let name = names.get(id).copied().unwrap_or(id);
        if IMPURE.contains(&name) {
            return Some(way(names, &came_from, from, id));
        }
        let Some(node) = metadata.resolve.nodes.iter().find(|node| node.id == id) else {
            continue;
        };
        for edge in &node.deps {
            let normal = edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
            let next = edge.pkg.as_str();
            if normal && next != from && !came_from.contains_key(next) {
                came_from.insert(next, id);
                queue.push_back(next);
            }
        }
    }
    None
}

fn way<'a>(
    names: &HashMap<&'a str, &'a str>,
    came_from: &HashMap<&'a str, &'a str>,
    from: &'a str,
    to: &'a str,
) -> Vec<&'a str> {
    let mut ids = vec![to];
    let mut id = to;
    while id != from {
        id = came_from[id];
        ids.push(id);
    }
    ids.iter()
        .rev()
        .map(|id| names.get(id).copied().unwrap_or(id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    const HOUSE: &[Layer] = &[
        Layer {
            name: "ground",
            may_use: &[],
            kind: Kind::Pure,
        },
        Layer {
            name: "roof",
            may_use: &["ground"],
            kind: Kind::Io,
        },
        Layer {
            name: TEST_PEER,
            may_use: &["ground"],
            kind: Kind::Io,
        },
    ];

    /// A workspace of `from -> to` lines, `from -dev-> to` for a dev-dependency.
    /// All but `tokio` and `leaf` are members.
    fn house(edges: &[&str]) -> Metadata {
        let names = ["ground", "roof", "stable", TEST_PEER, "leaf", "tokio"];
        let parsed: Vec<(&str, &str, Option<&str>)> = edges
            .iter()
            .map(|edge| match edge.split(' ').collect::<Vec<_>>()[..] {
                [from, "->", to] => (from, to, None),
                [from, "-dev->", to] => (from, to, Some("dev")),
                _ => panic!("not an edge: {edge}"),
            })
            .collect();
        let of = |name: &str| {
            parsed
                .iter()
                .filter(|(from, ..)| *from == name)
                .collect::<Vec<_>>()
        };
        let packages: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({ "id": format!("{name} 1.0"), "name": name, "description": null,
                    "manifest_path": "Cargo.toml", "targets": [], "dependencies": of(name).iter()
                        .map(|(_, to, kind)| serde_json::json!({ "name": to, "kind": kind }))
                        .collect::<Vec<_>>() })
            })
            .collect();
        let nodes: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({ "id": format!("{name} 1.0"), "deps": of(name).iter()
                    .map(|(_, to, kind)| serde_json::json!({ "pkg": format!("{to} 1.0"),
                        "dep_kinds": [{ "kind": kind }] }))
                    .collect::<Vec<_>>() })
            })
            .collect();
        let members: Vec<_> = edges
            .iter()
            .map(|edge| edge.split(' ').next().unwrap_or_default())
            .filter(|name| !["leaf", "tokio"].contains(name))
            .map(|name| format!("{name} 1.0"))
            .collect();
        let members: HashSet<_> = members
            .into_iter()
            .chain(["ground 1.0".to_owned(), "roof 1.0".to_owned()])
            .collect();
        serde_json::from_value(serde_json::json!({ "packages": packages,
            "workspace_members": members, "resolve": { "nodes": nodes },
            "target_directory": "target" }))
        .unwrap()
    }

    fn check_dependencies(edges: &[&str], expected: &str) {
        let metadata = house(edges);
        assert_eq!(
            shown(&dependencies(HOUSE, &metadata.members())),
            expected,
            "{edges:?}"
        );
    }

    #[test]
    fn arrows_point_down_only() {
        check_dependencies(&["roof -> ground", "roof -> tokio"], "");
        check_dependencies(
            &["ground -> roof"],
            "ground: may not use roof; it may use []\n",
        );
    }

    #[test]
    fn tests_may_use_the_test_peer_and_nothing_else() {
        let peer = format!("ground -dev-> {TEST_PEER}");
        let built_on_it = format!("ground -> {TEST_PEER}");
        let edge = format!("{TEST_PEER} -> ground");
        check_dependencies(&[&edge, &peer], "");
        check_dependencies(
            &[&edge, &built_on_it],
            "ground: may not use talkline-sim; it may use []\n",
        );
        check_dependencies(
            &["ground -dev-> roof"],
            "ground: may not use roof; it may use []\n",
        );
    }

    #[test]
    fn a_crate_without_a_row_is_a_violation() {
        check_dependencies(
            &["stable -> leaf"],
            "stable: has no row in the dependency table; give it one in ARCHITECTURE.md and in xtask\n",
        );
    }

    fn check_purity(edges: &[&str], expected: &str) {
        assert_eq!(shown(&purity(HOUSE, &house(edges))), expected, "{edges:?}");
    }

    #[test]
    fn a_pure_crate_reaches_no_io_however_long_the_way() {
        check_purity(&["ground -> leaf", "roof -> tokio"], "");
        check_purity(
            &["ground -> leaf", "leaf -> tokio"],
            "ground: is pure, yet reaches I/O: ground -> leaf -> tokio\n",
        );
        check_purity(
            &["ground -> tokio"],
            "ground: is pure, yet reaches I/O: ground -> tokio\n",
        );
    }

    #[test]
    fn what_only_tests_use_does_not_count() {
        check_purity(&["ground -dev-> tokio"], "");
        check_purity(&["ground -> leaf", "leaf -dev-> tokio"], "");
    }

    fn check_page(rows: &[&str], expected: &str) {
        let page = format!(
            "| crate | I/O? | may use |\n|---|---|---|\n{}\n",
            rows.join("\n")
        );
        let table = [
            Layer {
                name: "talkline-auth",
                may_use: &[],
                kind: Kind::Pure,
            },
            Layer {
                name: "talkline-frame",
                may_use: &[],
                kind: Kind::Pure,
            },
            Layer {
                name: "talkline-sim",
                may_use: &["talkline-frame"],
                kind: Kind::Io,
            },
        ];
        assert_eq!(shown(&architecture(&table, &page)), expected, "{rows:?}");
    }

    #[test]
    fn the_page_shows_the_table() {
        const AUTH: &str = "| `talkline-auth` | pure | – |";
        const FRAME: &str = "| `talkline-frame` | pure, sans-IO | – |";
        check_page(&[AUTH, FRAME, "| `talkline-sim` | yes | frame |"], "");
        check_page(
            &[AUTH, FRAME, "| `talkline-sim` | yes | all but auth |"],
            "",
        );
        check_page(
            &[AUTH, "| `talkline-sim` | yes | frame |"],
            "ARCHITECTURE.md: the dependency table has no row for `talkline-frame`\n",
        );
        check_page(
            &[AUTH, FRAME, "| `talkline-sim` | yes | frame, auth |"],
            "ARCHITECTURE.md: `talkline-sim` may use [\"talkline-frame\"] in xtask\n",
        );
        check_page(
            &[
                AUTH,
                "| `talkline-frame` | yes | – |",
                "| `talkline-sim` | yes | frame |",
            ],
            "ARCHITECTURE.md: `talkline-frame` is Pure in xtask\n",
        );
    }

    #[test]
    fn the_table_itself_points_down() {
        let at = |name: &str| TABLE.iter().position(|layer| layer.name == name);
        for layer in TABLE {
            for used in layer.may_use {
                assert!(at(used) < at(layer.name), "{} uses {used}", layer.name);
                assert!(at(used).is_some(), "{used} has a row");
            }
        }
    }
}
