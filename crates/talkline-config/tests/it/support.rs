//! Inputs from literals, reports as one line a problem.

use std::collections::BTreeMap;

use talkline_config::{
    DeveloperTools, FlagValue, Format, Inputs, Problem, Report, Resolved, Severity, SourceFile,
    resolve,
};

/// A configuration in the making.
#[derive(Clone, Default)]
pub(crate) struct Case {
    files: Vec<SourceFile>,
    variables: BTreeMap<String, String>,
    flags: Vec<FlagValue>,
    secret_files: BTreeMap<String, String>,
    exposed_files: std::collections::BTreeSet<String>,
    developer_tools: DeveloperTools,
}

/// One TOML file.
pub(crate) fn toml(text: &str) -> Case {
    Case::default().file("talkline.toml", text)
}

/// One JSON5 file.
pub(crate) fn json(text: &str) -> Case {
    Case::default().file("openclaw.json", text)
}

/// Variables only, `NAME=value` separated by blanks.
pub(crate) fn environment(variables: &str) -> Case {
    Case::default().with(variables)
}

impl Case {
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        let format = Format::of_file_name(name);
        self.files.push(SourceFile {
            name: name.into(),
            text: text.into(),
            format,
        });
        self
    }

    pub(crate) fn with(mut self, variables: &str) -> Self {
        for pair in variables.split_whitespace() {
            let (name, value) = pair.split_once('=').unwrap();
            self.variables.insert(name.into(), value.into());
        }
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub(crate) fn flag(mut self, flag: &str, key: &str, value: &str) -> Self {
        self.flags.push(FlagValue {
            flag: flag.into(),
            key: key.into(),
            value: value.into(),
        });
        self
    }

    /// As with `--dev`.
    pub(crate) fn dev(mut self) -> Self {
        self.developer_tools = DeveloperTools::Allowed;
        self
    }

    pub(crate) fn exposed(mut self, path: &str) -> Self {
        self.exposed_files.insert(path.into());
        self
    }

    pub(crate) fn secret_file(mut self, path: &str, text: &str) -> Self {
        self.secret_files.insert(path.into(), text.into());
        self
    }

    pub(crate) fn resolve(&self) -> Result<Resolved, Report> {
        resolve(&Inputs {
            files: &self.files,
            variables: &self.variables,
            flags: &self.flags,
            developer_tools: self.developer_tools,
            is_exposed: &|path| self.exposed_files.contains(path),
            read_secret_file: &|path| {
                self.secret_files
                    .get(path)
                    .cloned()
                    .ok_or_else(|| "no such file".to_owned())
            },
        })
    }

    #[track_caller]
    pub(crate) fn expect_sound(&self) -> Resolved {
        match self.resolve() {
            Ok(resolved) => resolved,
            Err(report) => panic!("{report}"),
        }
    }

    #[track_caller]
    pub(crate) fn expect_broken(&self) -> Report {
        match self.resolve() {
            Ok(resolved) => panic!("accepted: {:#?}", resolved.settings),
            Err(report) => report,
        }
    }
}

/// `code key |text under the caret|`, one line a problem; warnings start with `warning `.
pub(crate) fn lines(report: &Report) -> String {
    let line = |problem: &Problem| {
        let severity = if problem.severity == Severity::Warning {
            "warning "
        } else {
            ""
        };
        let key = problem.key.as_deref().unwrap_or("-");
        let place = match (report.span_text(problem), &problem.source) {
            (Some(text), _) => format!(" |{text}|"),
            (None, Some(source)) => format!(" ({source})"),
            (None, None) => String::new(),
        };
        format!("{severity}{} {key}{place}", problem.code)
    };
    report
        .problems()
        .iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}
