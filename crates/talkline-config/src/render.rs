//! Problems as text, in the look of a compiler's messages.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::{
    Source,
    problem::{Problem, Report, Severity, Style},
};

pub(crate) fn render(report: &Report, style: Style) -> String {
    let groups: Vec<Group<'_>> = report
        .problems
        .iter()
        .map(|problem| group(report, problem))
        .collect();
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Colour => Renderer::styled(),
    };
    // One report a problem: groups within one report are drawn as parts of one message.
    let mut text = String::new();
    for group in &groups {
        text.push_str(&renderer.render(std::slice::from_ref(group)));
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    text
}

fn group<'a>(report: &'a Report, problem: &'a Problem) -> Group<'a> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(&*problem.message).id(problem.code));
    let file = problem.file.and_then(|index| report.files.get(index));
    match (file, &problem.span) {
        (Some(file), Some(span)) => {
            let annotation = AnnotationKind::Primary.span(span.clone());
            let annotation = match &problem.key {
                Some(key) => annotation.label(key.as_str()),
                None => annotation,
            };
            let snippet = Snippet::source(&*file.text)
                .path(&*file.name)
                .annotation(annotation);
            group = group.element(snippet);
        }
        _ => {
            let place = match (&problem.source, &problem.key) {
                (Some(Source::Default) | None, None) => None,
                (Some(Source::Default) | None, Some(key)) => Some(key.clone()),
                (Some(source), None) => Some(source.to_string()),
                (Some(source), Some(key)) => Some(format!("{source} ({key})")),
            };
            group = group.elements(place.map(Origin::path));
        }
    }
    group.elements(
        problem
            .hint
            .as_deref()
            .map(|hint| Level::HELP.with_name("hint").message(hint)),
    )
}
