use super::*;
use crate::failures::observed::Closed;

fn told(message: &str) -> Told {
    Told {
        errors: vec![json!({"code": "c", "message": message, "param": null})],
        closed: Some(Closed {
            code: 1008,
            reason: "c".to_owned(),
        }),
        ..Told::default()
    }
}

fn scenario(node: &str) -> Scenario {
    let clients = [("python", "m"), ("node", node), ("browser", "m")];
    let clients = clients.map(|(client, message)| (client.to_owned(), told(message)));
    Scenario {
        name: "name".to_owned(),
        story: "Story.".to_owned(),
        clients: clients.into(),
        ..Scenario::default()
    }
}

#[test]
fn clients_that_were_told_the_same_stand_together() {
    assert_eq!(
        text(&scenario("m")),
        "name\nStory.\n\ntold to openai-python, openai-node, browser\n  error.code: c\n  error.message: m\n  closed: 1008 c\n"
    );
    let apart = text(&scenario("other"));
    assert!(
        apart.contains("\ntold to openai-python, browser\n"),
        "{apart}"
    );
    assert!(apart.contains("\ntold to openai-node\n"), "{apart}");
}

#[test]
fn the_first_difference_is_shown() {
    assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(
        first_difference("a\nb\n", "a\nc\n").as_deref(),
        Some("  - b\n  + c")
    );
    assert_eq!(
        first_difference("a\n", "a\nc\n").as_deref(),
        Some("  - (the end)\n  + c")
    );
}

#[test]
fn snapshots_are_written_compared_and_cleared_away() {
    let folder = std::env::temp_dir().join(format!("xtask-snapshots-{}", std::process::id()));
    let file = folder.join("one.txt");
    check(&file, "a\n", Mode::Rewrite).unwrap();
    check(&file, "a\n", Mode::Compare).unwrap();
    check(&file, "b\n", Mode::Compare).unwrap_err();
    check(&folder.join("two.txt"), "a\n", Mode::Compare).unwrap_err();
    assert!(
        stale(&folder, ["one"].into_iter(), Mode::Compare)
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        stale(&folder, [].into_iter(), Mode::Compare).unwrap().len(),
        1
    );
    assert!(
        stale(&folder, [].into_iter(), Mode::Rewrite)
            .unwrap()
            .is_empty()
    );
    assert!(!file.exists());
    fs::remove_dir_all(&folder).unwrap();
}
