//! docs/recipes.md: each recipe is a document of its own, with a shell of its own.

use super::commands::follow_text;
use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/recipes.md";

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{DOCUMENT}: {error}"))
}

/// The headings of the recipes, and their texts, each in the lines that it has in the document.
fn recipes(text: &str) -> Vec<(&str, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = (0..lines.len()).filter(|line| lines[*line].starts_with("## "));
    let begins: Vec<usize> = begins.collect();
    let ends = begins.iter().skip(1).copied().chain([lines.len()]);
    let recipes = begins.iter().zip(ends).map(|(begin, end)| {
        let before = "\n".repeat(*begin);
        (
            &lines[*begin]["## ".len()..],
            before + &lines[*begin..end].join("\n") + "\n",
        )
    });
    recipes.collect()
}

fn follow(heading: &str) {
    let text = text();
    let recipes = recipes(&text);
    let found = recipes.iter().find(|(known, _)| *known == heading);
    let (_, recipe) = found.unwrap_or_else(|| panic!("{DOCUMENT} has no recipe `{heading}`"));
    follow_text(DOCUMENT, recipe);
}

/// A test for each, so that one that cannot run here is one that is skipped.
macro_rules! followed {
    ($($name:ident = $heading:literal;)*) => {
        const FOLLOWED: &[&str] = &[$($heading),*];
        $(
            #[test]
            fn $name() {
                follow($heading);
            }
        )*
    };
}

followed! {
    deploy_by_a_symbolic_link = "Deploy by a symbolic link";
    nginx_in_front = "nginx in front, over a unix socket";
    tls = "TLS";
    node = "Node on all processors";
    flask = "Flask with gunicorn";
    go = "Go";
    axum = "axum";
    blue_and_green = "Blue and green";
    container = "Container";
    kubernetes = "Kubernetes";
    inherited_by_a_container = "A container that inherits a socket";
    development = "Development";
}

#[test]
fn every_recipe_is_followed_and_in_the_table() {
    let text = text();
    let recipes = recipes(&text);
    let headings: Vec<&str> = recipes.iter().map(|(heading, _)| *heading).collect();
    let mut sorted = headings.clone();
    sorted.sort_unstable();
    let mut followed = FOLLOWED.to_vec();
    followed.sort_unstable();
    assert_eq!(sorted, followed);
    for heading in headings {
        assert!(
            text.contains(&format!("| [{heading}](#")),
            "{heading} is not in the table"
        );
    }
}
