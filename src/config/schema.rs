//! The JSON Schema of the configuration (draft 2020-12), for editors and other tools.
//!
//! Names, descriptions and defaults are those of the tables of keys, the values of socket options those of
//! their table; only the form of the other values stands here. A scalar of the YAML is read as it is
//! written, so the schema takes `3` and `"3"`. What a schema cannot know (names that exist, keys that fit
//! each other), `listend check` finds.

use super::keys::{self, Key};
use super::options::{self, ValueKind};
use super::{preset, scalar};
use crate::handoff;
use crate::launch_spec::Resource;
use crate::report::Kind;
use crate::sandbox::{Flag, Preset};
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

/// A duration, such as `30s` or `1h30m`; 0 needs no unit.
const DURATION: &str = "(0|([0-9]+(ms|s|m|h|d))+)";
/// A name, as `scalar::name` takes it.
const NAME: &str = "^[!-.0-9;<>-z|~]{1,255}$";

/// The schema of a file.
pub fn schema() -> Value {
    let mut file = mapping(keys::TOP);
    file["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    file["description"] = json!("A configuration of listend; see listend.yaml(5).");
    // An empty file is one, too.
    file["type"] = json!(["object", "null"]);
    if let Some(forms) = file["properties"]["silence"]["anyOf"].as_array_mut() {
        forms.push(json!({"type": "null"}));
    }
    // In a worker `listeners` lists names; here it declares them.
    for (key, entry) in [("listeners", "listener"), ("workers", "worker")] {
        let declared = &mut file["properties"][key];
        let description = declared["description"].take();
        *declared = json!({
            "description": description,
            "type": ["object", "null"],
            "propertyNames": {"pattern": NAME},
            "additionalProperties": defined(entry),
        });
    }
    let mut defaults = mapping(keys::WORKER);
    if let Some(defaults) = defaults.as_object_mut() {
        defaults.remove("required");
    }
    let mut worker = defaults.clone();
    // With `forward` the server may be one that runs elsewhere.
    worker["if"] = json!({"required": ["forward"]});
    worker["else"] = json!({"required": ["command"]});
    worker["description"] = json!("a program, and the listeners that it gets");
    file["$defs"] = json!({
        "defaults": defaults,
        "listener": keys_or("listener_keys", one_or_more(text())),
        "listener_keys": mapping(keys::LISTENER),
        "worker": worker,
        "restart": mapping(keys::RESTART),
        "rollout": mapping(keys::ROLLOUT),
        "idle_unless": mapping(keys::IDLE_UNLESS),
        "sandbox": keys_or("sandbox_keys", sandbox_preset(&["none"])),
        "sandbox_keys": mapping(keys::SANDBOX),
        "instances_keys": mapping(keys::INSTANCES),
        "hook": keys_or("hook_keys", command()),
        "hook_keys": mapping(keys::HOOK),
        "forward_keys": mapping(keys::FORWARD),
    });
    file
}

/// A mapping with the keys of a table.
fn mapping(table: &'static [Key]) -> Value {
    let properties = table.iter();
    let properties = properties.map(|key| (key.name.to_owned(), property(table, key)));
    // An editor says what was meant, and does not offer it.
    let others = keys::foreign(table).map(|(name, hint)| {
        let nothing = json!({"enum": [], "errorMessage": hint, "doNotSuggest": true});
        (name.to_owned(), nothing)
    });
    let properties = others.chain(properties);
    let mut mapping = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties.collect::<Map<String, Value>>(),
    });
    let required = table.iter().filter(|key| key.default.is_empty());
    let required: Vec<&str> = required.map(|key| key.name).collect();
    if !required.is_empty() {
        mapping["required"] = json!(required);
    }
    mapping
}

fn property(table: &[Key], key: &Key) -> Value {
    // A test holds that there is a form for each key.
    let mut value = value_of(table, key.name).unwrap_or_else(|| json!({}));
    if let Some(default) = as_value(key.default, &value) {
        value["default"] = default;
    }
    let description = match key.default {
        "" => key.doc.to_owned(),
        default => format!("{} (default: {default})", key.doc),
    };
    if description.contains('`') {
        // Of yaml-language-server, which shows the other one as it is written.
        value["markdownDescription"] = json!(description);
    }
    value["description"] = json!(description);
    value
}

/// The default of a key, where it is a value and not a description of one.
fn as_value(default: &str, of: &Value) -> Option<Value> {
    let words = of["enum"].as_array();
    let is_word = words.is_some_and(|words| words.contains(&json!(default)));
    let is_scalar = || scalar::duration("", default).is_ok() || scalar::rate("", default).is_ok();
    if *of == mode() {
        return scalar::mode("", default).is_ok().then(|| json!(default));
    }
    match serde_json::from_str(default) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => Some(value),
        _ if is_word || is_scalar() && default != "none" => Some(json!(default)),
        _ => None,
    }
}

/// The values that a key takes.
fn value_of(table: &[Key], key: &str) -> Option<Value> {
    Some(match key {
        // In a listener it is a socket option.
        "keep_alive" if table == keys::FORWARD => duration(&["off"]),
        // In a rollout it is a time.
        "watch" if table == keys::WORKER => one_or_more(text()),
        "preset" if table == keys::SANDBOX => sandbox_preset(&["none"]),
        "sandbox" => defined("sandbox"),
        "protect_system" => words_and_flags(&["full", "strict"]),
        "protect_home" => words_and_flags(&["read-only", "tmpfs"]),
        "protect_proc" => json!({"enum": ["default", "noaccess", "invisible", "ptraceable"]}),
        "capabilities" | "restrict_address_families" | "system_calls" => one_or_more(text()),
        "read_only_paths" | "read_write_paths" | "inaccessible_paths" => {
            one_or_more(matching("^-?/"))
        }
        "memory_max" => size("[0-9]+[KMGT]?|[0-9]+(\\.[0-9]{1,2})?%|infinity"),
        "tasks_max" => size("[0-9]+|[0-9]+(\\.[0-9]{1,2})?%|infinity"),
        "cpu_quota" => matching("^([0-9]+(\\.[0-9]{1,2})?%|infinity)$"),
        "io_weight" => integer(1, 10_000, &[]),
        flag if Flag::ALL.iter().any(|one| one.key() == flag) => boolean(),
        "forward" => keys_or("forward_keys", text()),
        "to" => text(),
        "connect_timeout" => duration(&[]),
        "drain" => duration(&[]),
        "idle" => duration(&["infinity"]),
        "proxy_protocol" => json!({"enum": ["v1", "v2", "none"]}),
        "distribute" => json!({"enum": ["shared", "shards"]}),
        "expand_environment"
        | "ignore_sigpipe"
        | "ipv6_only"
        | "listen_pid"
        | "nonblocking"
        | "optional"
        | "remove_on_stop"
        | "runtime_directory_preserve"
        | "writable" => boolean(),
        "mode" | "directory_mode" | "runtime_directory_mode" | "umask" => mode(),
        "argv0" | "directory_group" | "directory_owner" | "group" | "owner" | "user" => text(),
        "address"
        | "environment_file"
        | "grant"
        | "multicast"
        | "success_exit_status"
        | "supplementary_groups" => one_or_more(text()),
        "backlog" => integer(1, i32::MAX.into(), &[]),
        "fd_store" => integer(0, 1024, &[]),
        "instances" => keys_or("instances_keys", integer(1, 10_000, &[])),
        "parallel" | "min" | "max" => integer(1, 10_000, &[]),
        "scale_up_at" => integer(0, 1_000_000, &[]),
        "nice" => integer(-20, 19, &[]),
        "oom_score_adjust" => integer(-1000, 1000, &[]),
        "max_connections" | "max_connections_per_source" => integer(1, 1_000_000, &["none"]),
        "flow_timeout" | "min_ready" | "timeout" | "wait_for_address" | "watch" => duration(&[]),
        "connection_id_length" => integer(1, 20, &[]),
        "max_flows" => integer(1 << 10, 1 << 24, &[]),
        "flows" => json!({"enum": ["shared", "sticky"]}),
        "flow_key" => json!({"enum": ["tuple", "quic"]}),
        "path" => matching("^/"),
        "idle_unless" => defined("idle_unless"),
        "connection_timeout" | "idle_timeout" | "start_timeout" | "stop_timeout" => {
            duration(&["infinity"])
        }
        "cool_down" => duration(&["never"]),
        "watchdog" => duration(&["off"]),
        "accept_rate" | "limit" | "trigger_limit" => told(
            matching(&format!(r"^(none|\s*[0-9]+\s+in\s+{DURATION}\s*)$")),
            "write a number and a duration, such as `10 in 3m`, or `none`",
        ),
        "backoff" => told(
            matching(&format!(r"^{DURATION}\s*(\.\.\s*{DURATION})?$")),
            "write two durations, such as `100ms..30s`, or one",
        ),
        "activation" => json!({"enum": ["eager", "on-demand", "per-connection"]}),
        "kill_mode" => json!({"enum": ["process", "group"]}),
        "notify_access" => json!({"enum": ["main", "all"]}),
        "on_failure" => json!({"enum": ["hold", "refuse"]}),
        "order" => json!({"enum": ["start-first", "stop-first"]}),
        "overflow" => json!({"enum": ["wait", "close"]}),
        "policy" => policy(),
        "resolve" => json!({"enum": ["at-start", "at-reload"]}),
        "restart" => keys_or("restart", policy()),
        "rollout" => a_mapping("rollout"),
        "handoff" => one_or_more(one_of(handoff::ALL.iter().map(|dialect| dialect.keyword))),
        "preset" => one_of(preset::ALL.iter().flat_map(|preset| {
            let synonyms = preset.synonyms.iter().copied();
            std::iter::once(preset.name).chain(synonyms)
        })),
        "silence" => one_or_more(one_of(Kind::silenceable().map(Kind::code))),
        "ready" => any_of([
            json!({"enum": ["started", "notify", "accepting", "accepting all", "accepting first", "einhorn"]}),
            matching(r"^fd\s+[0-9]+$"),
        ]),
        "output" => any_of([
            json!({"enum": ["inherit", "tag", "tag-json", "journal", null]}),
            matching("^(null$|file:)"),
        ]),
        "reload_signal" | "stop_signal" => signal(),
        "command" => command(),
        "after_ready" | "after_stop" | "before_start" | "reload_command" => defined("hook"),
        "network_namespace" => matching("^/"),
        "symlinks" => one_or_more(matching("^/")),
        "runtime_directory" => matching("^[^/]"),
        "working_directory" => matching(r"^(/|\{runtime_dir\})"),
        "metrics" | "web" => defined("listener"),
        "defaults" => a_mapping("defaults"),
        "listeners" | "workers" => one_or_more(matching(NAME)),
        "environment" => json!({
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        }),
        "limits" => {
            let limit = |resource: &Resource| (resource.key().to_owned(), limit());
            json!({
                "type": "object",
                "additionalProperties": false,
                "properties": Resource::ALL.iter().map(limit).collect::<Map<String, Value>>(),
            })
        }
        option => of_option(options::by_key(option)?.value),
    })
}

fn of_option(value: ValueKind) -> Value {
    match value {
        ValueKind::Flag => boolean(),
        ValueKind::Number(min, max) => integer(min, max, &[]),
        ValueKind::Size(..) => size("[0-9]+[KMGT]?"),
        ValueKind::Seconds(..) | ValueKind::Milliseconds(..) => duration(&[]),
        ValueKind::Text(_) => text(),
        ValueKind::Choice(words) => one_of(words.iter().map(|(word, _)| *word)),
    }
}

fn defined(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// Keys, or something shorter. Not `anyOf`: an editor would not know which of both was meant, and
/// would not say which key is wrong.
fn keys_or(keys: &str, other: Value) -> Value {
    let mut value = json!({"if": {"type": "object"}, "then": defined(keys)});
    // Editors do not look at `else` before there is a value.
    if let Some(words) = other.get("enum") {
        value["examples"] = words.clone();
    }
    value["else"] = other;
    value
}

/// A mapping that an editor begins without keys.
fn a_mapping(name: &str) -> Value {
    json!({"type": "object", "allOf": [defined(name)]})
}

/// What yaml-language-server says where it does not hold.
fn told(mut schema: Value, message: &str) -> Value {
    schema["errorMessage"] = json!(message);
    schema
}

fn any_of<const N: usize>(forms: [Value; N]) -> Value {
    json!({"anyOf": forms.to_vec()})
}

fn one_of<Word: Into<Value>>(words: impl Iterator<Item = Word>) -> Value {
    json!({"enum": words.map(Into::into).collect::<Vec<Value>>()})
}

/// A list, or the one element of it.
fn one_or_more(of: Value) -> Value {
    any_of([of.clone(), json!({"type": "array", "items": of})])
}

/// Any scalar but null.
fn text() -> Value {
    json!({"type": ["string", "number", "boolean"]})
}

fn matching(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn boolean() -> Value {
    let schema = json!({"type": ["boolean", "string"], "pattern": "^(true|false)$"});
    told(schema, "write `true` or `false`")
}

fn integer(min: i64, max: i64, words: &[&str]) -> Value {
    let or: String = words.iter().map(|word| format!(", or `{word}`")).collect();
    let words: String = words.iter().map(|word| format!("|{word}")).collect();
    // An editor begins with a value of the first type: with 0, if that is a number.
    let schema = json!({
        "type": ["string", "integer"],
        "minimum": min,
        "maximum": max,
        "pattern": format!("^(-?(0|[1-9][0-9]*){words})$"),
    });
    told(schema, &format!("write a number from {min} to {max}{or}"))
}

/// As a number only 0 is one: the others need a unit.
fn duration(words: &[&str]) -> Value {
    let or: String = words.iter().map(|word| format!(", or `{word}`")).collect();
    let words: String = words.iter().map(|word| format!("|{word}")).collect();
    let message = format!("write a duration with its unit, such as `30s` or `1h30m`{or}");
    let schema = json!({
        "type": ["string", "integer"],
        "pattern": format!("^({DURATION}{words})$"),
        "if": {"type": "integer"},
        "then": told(json!({"enum": [0]}), &message),
    });
    told(schema, &message)
}

/// Permission bits. As a number `0660` is 660 in YAML 1.2, and 432 in YAML 1.1.
fn mode() -> Value {
    let schema = json!({
        "type": ["string", "integer"],
        "minimum": 0,
        "maximum": 777,
        "pattern": "^(0o)?0*[0-7]{1,3}$",
    });
    told(schema, "write permission bits in octal, such as `0660`")
}

fn size(pattern: &str) -> Value {
    let schema =
        json!({"type": ["string", "integer"], "minimum": 0, "pattern": format!("^({pattern})$")});
    told(schema, "write a number of bytes, or one with K, M, G or T")
}

fn limit() -> Value {
    let one = "([0-9]+[KMGT]?|unlimited)";
    let message = "write a limit, `unlimited`, or SOFT:HARD";
    told(size(&format!("{one}(:{one})?")), message)
}

fn sandbox_preset(others: &[&'static str]) -> Value {
    let presets = Preset::ALL.iter().map(|(word, _)| *word);
    one_of(presets.chain(others.iter().copied()))
}

/// Words beside `true` and `false`.
fn words_and_flags(words: &[&'static str]) -> Value {
    any_of([boolean(), one_of(words.iter().copied())])
}

fn policy() -> Value {
    json!({"enum": ["always", "on-failure", "never"]})
}

fn signal() -> Value {
    let names: Vec<&str> = Signal::iterator()
        .filter_map(|signal| signal.as_str().strip_prefix("SIG"))
        .collect();
    let names = names.join("|");
    let schema = json!({
        "type": ["string", "integer"],
        "minimum": 1,
        "maximum": 64,
        "pattern": format!(r"^((SIG)?({names}|RTMIN(\+[0-9]+)?|RTMAX(-[0-9]+)?)|[0-9]+)$"),
        "examples": ["SIGTERM", "SIGQUIT", "SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2"],
    });
    told(
        schema,
        "write the name of a signal, such as `SIGTERM`, or its number",
    )
}

/// A list of words, or one text that is split as a shell would.
fn command() -> Value {
    any_of([
        json!({"type": "string", "minLength": 1}),
        json!({"type": "array", "items": text(), "minItems": 1}),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_form() {
        let tables = [
            keys::TOP,
            keys::LISTENER,
            keys::WORKER,
            keys::RESTART,
            keys::ROLLOUT,
            keys::HOOK,
            keys::FORWARD,
            keys::SANDBOX,
            keys::INSTANCES,
        ];
        for table in tables {
            for key in table {
                let value = value_of(table, key.name);
                assert!(value.is_some(), "`{}` is missing in schema.rs", key.name);
            }
        }
    }
}
