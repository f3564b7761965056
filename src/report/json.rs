//! Problems as JSON: the shape that `check --json` promises.

use super::{Problem, Report, Sources};
use serde_json::{Map, Value, json};

/// `{"errors":[…],"advice":[…]}`; keys without a value are left out. Where some were left out, a
/// third key says how many: `"omitted":{"unused-listener":950}`.
pub fn to_json(report: &Report, sources: &Sources) -> Value {
    let list = |problems: &[Problem]| -> Vec<Value> {
        problems.iter().map(|p| problem(p, sources)).collect()
    };
    let mut out = json!({ "errors": list(&report.errors), "advice": list(&report.advice) });
    if !report.omitted.is_empty() {
        let counts = report.omitted.iter();
        out["omitted"] = counts
            .map(|(kind, count)| (kind.code(), json!(count)))
            .collect();
    }
    out
}

fn problem(problem: &Problem, sources: &Sources) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            out.insert(key.to_owned(), value);
        }
    };
    put("kind", json!(problem.kind.code()));
    put("listener", json!(problem.listener));
    put("worker", json!(problem.worker));
    put("address", json!(problem.address));
    if let Some(place) = problem.place {
        put("file", json!(sources.name(place.file)));
        put("line", json!(place.line));
        put("column", json!(place.column));
    }
    put("message", json!(problem.message));
    if !problem.causes.is_empty() {
        put("causes", json!(problem.causes));
    }
    put("hint", json!(problem.hint));
    put("holder", json!(problem.holder));
    if !problem.related.is_empty() {
        let related: Vec<Value> = problem
            .related
            .iter()
            .map(|(place, words)| {
                json!({
                    "file": sources.name(place.file),
                    "line": place.line,
                    "column": place.column,
                    "message": words,
                })
            })
            .collect();
        put("related", Value::Array(related));
    }
    Value::Object(out)
}
