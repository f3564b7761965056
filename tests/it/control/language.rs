//! The language of the control socket: its definition under docs/ against the program, frames
//! however they are cut, and the table of `listend status`.

use listend::control::{
    Access, Binary, Call, CheckReply, Connections, Daemon, DescriptionReply, Detail, Error, Event,
    Expects, ExplainReply, GiveReply, INTERFACE, Inbox, Instance, Life, Listener, ListenerState,
    LogLine, LogsReply, MAX_FRAME, MetricsReply, Outbox, Progress, Queue, Reply, Request, Rollout,
    SERVICE, Scaling, Socket, SocketOption, Status, TakeReply, TakenSocket, WatchReply, Worker,
    WorkerState, all_is_well, description, info, methods, rfc3339, table, troubles,
};
use listend::report::Style;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// An interface definition, taken apart as far as the tests need it.
#[derive(Default)]
struct Definition {
    name: String,
    /// Input and output of each.
    methods: BTreeMap<String, (Fields, Fields)>,
    errors: BTreeMap<String, Fields>,
    types: BTreeMap<String, Fields>,
}

/// Names and types: `?[]string`.
type Fields = BTreeMap<String, String>;

fn definition(interface: &str) -> Definition {
    let text = description(interface).expect("the interface is there");
    let without_comments: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join(" ");
    let spaced = ["(", ")", ",", ":"]
        .iter()
        .fold(without_comments, |text, sign| {
            text.replace(sign, &format!(" {sign} "))
        });
    let mut words = spaced.split_whitespace();
    let mut found = Definition::default();
    while let Some(keyword) = words.next() {
        let name = words.next().expect("a name").to_owned();
        let twice = match keyword {
            "interface" => {
                found.name = name;
                false
            }
            "type" => found.types.insert(name, fields(&mut words)).is_some(),
            "error" => found.errors.insert(name, fields(&mut words)).is_some(),
            "method" => {
                let input = fields(&mut words);
                assert_eq!(words.next(), Some("->"), "{name}");
                let both = (input, fields(&mut words));
                found.methods.insert(name, both).is_some()
            }
            other => panic!("{other} in the definition of {interface}"),
        };
        assert!(!twice, "defined twice: {keyword}");
    }
    found
}

fn fields<'a>(words: &mut impl Iterator<Item = &'a str>) -> Fields {
    assert_eq!(words.next(), Some("("));
    let mut fields = Fields::new();
    loop {
        match words.next().expect("the end of the fields") {
            ")" => return fields,
            "," => {}
            name => {
                assert_eq!(words.next(), Some(":"), "{name}");
                let of_type = words.next().expect("a type").to_owned();
                assert!(fields.insert(name.to_owned(), of_type).is_none(), "{name}");
            }
        }
    }
}

fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
    names.into_iter().map(String::as_str).collect()
}

#[test]
fn every_interface_is_described_under_its_own_name() {
    let info = info();
    assert_eq!(info.interfaces, [SERVICE, INTERFACE]);
    for interface in info.interfaces {
        assert_eq!(definition(interface).name, interface);
        // varlinkctl(1) shows names with dots as interfaces, and types with a capital.
        assert!(interface.contains('.'));
    }
    let unknown = Error::InterfaceNotFound {
        interface: "io.example".to_owned(),
    };
    assert_eq!(description("io.example"), Err(unknown));
}

#[test]
fn the_methods_are_those_of_the_definitions() {
    let described: BTreeSet<String> = [SERVICE, INTERFACE]
        .iter()
        .flat_map(|interface| {
            let methods = definition(interface).methods.into_keys();
            methods.map(move |name| format!("{interface}.{name}"))
        })
        .collect();
    let known: BTreeSet<String> = methods().collect();
    assert_eq!(described, known);
}

/// A value of the type, and one of another.
fn examples(of_type: &str) -> (Value, Value) {
    match of_type.trim_start_matches('?') {
        "string" => (json!("x"), json!(1)),
        "int" => (json!(1), json!("x")),
        "bool" => (json!(true), json!("true")),
        "[]string" => (json!(["x"]), json!("x")),
        other => panic!("no example of {other}"),
    }
}

fn ask(method: &str, parameters: &Map<String, Value>) -> Result<Request, Error> {
    let call = Call {
        method: method.to_owned(),
        parameters: parameters.clone(),
        expects: Expects::Several,
    };
    Request::of(call, Access::Act)
}

#[test]
fn parameters_are_taken_as_they_are_described() {
    for interface in [SERVICE, INTERFACE] {
        for (name, (input, _)) in definition(interface).methods {
            let method = format!("{interface}.{name}");
            let value = |of_type: &String| examples(of_type).0;
            let all: Map<_, _> = input.iter().map(|(k, v)| (k.clone(), value(v))).collect();
            assert!(ask(&method, &all).is_ok(), "{method}");
            for (parameter, of_type) in &input {
                let wrong = Err(Error::InvalidParameter {
                    parameter: parameter.clone(),
                });
                let mut other = all.clone();
                other[parameter] = examples(of_type).1;
                assert_eq!(ask(&method, &other), wrong, "{method} {other:?}");
                other[parameter] = Value::Null;
                let with_null = ask(&method, &other);
                other.remove(parameter);
                assert_eq!(ask(&method, &other), with_null, "{method} {parameter}");
                match of_type.starts_with('?') {
                    true => assert!(with_null.is_ok(), "{method} {parameter}"),
                    false => assert_eq!(with_null, wrong, "{method}"),
                }
            }
            let mut more = all.clone();
            more.insert("surplus".to_owned(), json!(1));
            let surplus = Error::InvalidParameter {
                parameter: "surplus".to_owned(),
            };
            assert_eq!(ask(&method, &more), Err(surplus), "{method}");
        }
    }
}

#[test]
fn errors_are_those_of_the_definitions() {
    let word = || "x".to_owned();
    let ours = [
        Error::InterfaceNotFound { interface: word() },
        Error::MethodNotFound { method: word() },
        Error::MethodNotImplemented { method: word() },
        Error::InvalidParameter { parameter: word() },
        Error::PermissionDenied,
        Error::ExpectedMore,
        Error::NoSuchThing {
            name: word(),
            suggestion: None,
        },
        Error::Refused { reason: word() },
        Error::Failed { reason: word() },
        Error::NotReloaded {
            reason: word(),
            rendered: word(),
            errors: Vec::new(),
        },
    ];
    let mut described = BTreeMap::new();
    for interface in [SERVICE, INTERFACE] {
        for (name, fields) in definition(interface).errors {
            described.insert(format!("{interface}.{name}"), fields);
        }
    }
    assert_eq!(described.len(), ours.len());
    for error in ours {
        let fields = described.get(error.name()).expect("it is described");
        let parameters = error.parameters();
        let got = parameters.as_object().expect("an object");
        assert_eq!(names(fields.keys()), names(got.keys()), "{}", error.name());
    }
}

/// Compares a value with what the definition says about its type.
fn has_type(value: &Value, of_type: &str, types: &BTreeMap<String, Fields>) {
    if let Some(nullable) = of_type.strip_prefix('?') {
        if !value.is_null() {
            has_type(value, nullable, types);
        }
        return;
    }
    if let Some(element) = of_type.strip_prefix("[]") {
        let values = value.as_array().expect("an array");
        assert!(!values.is_empty(), "the example has none of {element}");
        values.iter().for_each(|one| has_type(one, element, types));
        return;
    }
    match of_type {
        "string" => assert!(value.is_string(), "{value}"),
        "int" => assert!(value.is_u64(), "{value}"),
        "bool" => assert!(value.is_boolean(), "{value}"),
        "object" => assert!(value.is_object(), "{value}"),
        named => {
            let fields = types.get(named).expect("the type is defined");
            let got = value.as_object().expect("an object");
            assert_eq!(names(fields.keys()), names(got.keys()), "{named}");
            for (name, of_type) in fields {
                has_type(&got[name], of_type, types);
            }
        }
    }
}

/// Compares an answer that has all there can be in it with the output of a method.
fn is_answer(value: &Value, interface: &str, method: &str) {
    let definition = definition(interface);
    let (_, output) = &definition.methods[method];
    let got = value.as_object().expect("an object");
    assert_eq!(names(output.keys()), names(got.keys()), "{method}");
    for (name, of_type) in output {
        has_type(&got[name], of_type, &definition.types);
    }
}

#[test]
fn answers_have_the_shapes_that_are_described() {
    fn value(answer: impl serde::Serialize) -> Value {
        serde_json::to_value(answer).expect("JSON")
    }
    let word = || Some("x".to_owned());
    let mut progress = Progress::default();
    for method in ["Start", "Stop", "Restart", "Scale"] {
        is_answer(&value(&progress), INTERFACE, method);
    }
    progress.changes = Some(vec!["x".to_owned()]);
    is_answer(&value(progress), INTERFACE, "Reload");
    let event = Event {
        listener: word(),
        worker: word(),
        instance: word(),
        pid: Some(1),
        ..Event::default()
    };
    let event = Some(event);
    is_answer(&value(WatchReply { event }), INTERFACE, "Watch");
    let line = LogLine {
        worker: word(),
        instance: word(),
        ..LogLine::default()
    };
    let line = Some(line);
    is_answer(&value(LogsReply { line }), INTERFACE, "Logs");
    let check = CheckReply {
        errors: vec![json!({})],
        advice: vec![json!({})],
        omitted: Some(json!({})),
    };
    is_answer(&value(check), INTERFACE, "Check");
    let sockets = vec![TakenSocket {
        listener: "web".to_owned(),
        address: "127.0.0.1:80".to_owned(),
    }];
    let message = Some("held".to_owned());
    is_answer(&value(GiveReply { message }), INTERFACE, "GiveListener");
    is_answer(&value(TakeReply { sockets }), INTERFACE, "TakeListener");
    is_answer(&value(ExplainReply::default()), INTERFACE, "Explain");
    is_answer(&value(MetricsReply::default()), INTERFACE, "Metrics");
    for method in ["Signal", "Reset", "Reopen"] {
        is_answer(&json!({}), INTERFACE, method);
    }
    is_answer(&value(info()), SERVICE, "GetInfo");
    let description = "x".to_owned();
    let described = DescriptionReply { description };
    is_answer(&value(described), SERVICE, "GetInterfaceDescription");
}

fn detail() -> Option<Detail> {
    Some(Detail {
        place: Some("/etc/listend.yaml:3".to_owned()),
        options: vec![SocketOption {
            address: "127.0.0.1:8080".to_owned(),
            name: "receive_buffer".to_owned(),
            asked: Some("1M".to_owned()),
            effective: Some("425984".to_owned()),
        }],
        life: Some(Life {
            ready: "notify".to_owned(),
            rollout: Rollout {
                order: "start-first".to_owned(),
                parallel: 1,
                min_ready: "2 s".to_owned(),
                under_way: false,
            },
            watchdog: Some("10 s".to_owned()),
            stored: 1,
            fd_store: 16,
        }),
        grant: vec!["uid 1000".to_owned()],
        taken: Some("2026-01-31T12:00:00Z, by uid 0, pid 9 (sh)".to_owned()),
    })
}

#[test]
fn status_has_the_shape_that_is_described() {
    let mut status = example();
    status.listeners.truncate(1);
    status.listeners[0].detail = detail().map(Box::new);
    status.workers.retain(|worker| worker.name == "mail");
    status.workers[0].detail = detail().map(Box::new);
    status.workers[0].setback = Some("x".to_owned());
    status.workers[0].scaling = Some(Scaling::default());
    status.workers[0].unused_since = Some("2026-01-31T12:00:00Z".to_owned());
    status.workers[0].instances[0].status = Some("x".to_owned());
    let value = serde_json::to_value(&status).expect("JSON");
    is_answer(&value, INTERFACE, "Status");
    let back: Status = serde_json::from_value(value).expect("it is read as it is written");
    assert_eq!(back, status);
}

#[test]
fn what_is_not_asked_for_is_not_there_and_what_is_unknown_is_null() {
    let mut status = example();
    status.daemon = None;
    status.listeners.retain(|one| one.name == "spool");
    status.workers.retain(|one| one.name == "batch");
    assert_eq!(
        serde_json::to_string(&status).expect("JSON"),
        concat!(
            r#"{"listeners":[{"name":"spool","sockets":[{"address":"fifo:/run/spool","#,
            r#""kind":"fifo","queue":null,"shard":null,"flows":null}],"state":"listening","workers":["batch"]}],"#,
            r#""workers":[{"name":"batch","activation":"on-demand","generation":1,"#,
            r#""state":"waiting","setback":null,"instances":[{"name":"batch","generation":1,"pid":null,"#,
            r#""state":"waiting","retrying":false,"reloading":false,"status":null,"since":"2026-01-31T11:00:00Z","restarts":0,"last_exit":"exit status 0","exit_status":null,"exit_signal":null,"next_try":null}],"#,
            r#""listeners":["spool"],"output":"tag","connections":null}]}"#
        )
    );
    // A newer listend may say more.
    let newer = r#"{"listeners":[],"workers":[],"more":1}"#;
    let read: Status = serde_json::from_str(newer).expect("it is read");
    assert_eq!(read, Status::default());
}

/// Noon of the last of January 2026.
const NOON: u64 = 1_769_860_800;

fn queue(depth: Option<u64>, limit: Option<u64>, drops: Option<u64>) -> Option<Queue> {
    Some(Queue {
        depth,
        limit,
        drops,
    })
}

fn listener(name: &str, state: ListenerState, sockets: &[(&str, &str, Option<Queue>)]) -> Listener {
    let socket = |(address, kind, queue): &(&str, &str, Option<Queue>)| Socket {
        address: (*address).to_owned(),
        kind: (*kind).to_owned(),
        queue: *queue,
        shard: None,
        flows: None,
    };
    Listener {
        name: name.to_owned(),
        sockets: sockets.iter().map(socket).collect(),
        state,
        workers: vec!["batch".to_owned()],
        detail: None,
    }
}

fn instance(
    name: &str,
    pid: Option<u32>,
    state: WorkerState,
    ago: u64,
    restarts: u64,
    last_exit: Option<&str>,
) -> Instance {
    Instance {
        name: name.to_owned(),
        generation: 1,
        pid,
        state,
        retrying: false,
        reloading: false,
        status: None,
        since: rfc3339(NOON - ago),
        restarts,
        last_exit: last_exit.map(str::to_owned),
        exit_status: None,
        exit_signal: None,
        next_try: None,
        usage: None,
    }
}

fn worker(name: &str, activation: &str, state: WorkerState, instances: Vec<Instance>) -> Worker {
    Worker {
        name: name.to_owned(),
        activation: activation.to_owned(),
        generation: 1,
        state,
        setback: None,
        scaling: None,
        unused_since: None,
        instances,
        listeners: vec!["spool".to_owned()],
        output: Some("tag".to_owned()),
        connections: None,
        detail: None,
    }
}

/// One of everything that a table shows.
fn example() -> Status {
    use WorkerState::{Backoff, Degraded, Failed, Running, Starting, Stopped, Stopping, Waiting};
    let tcp = queue(Some(3), Some(4096), Some(0));
    let mut mail = worker(
        "mail",
        "per-connection",
        Running,
        vec![instance("mail-4711", Some(4_194_304), Running, 5, 0, None)],
    );
    mail.connections = Some(Connections {
        live: 1,
        accepted: 4711,
        refused: 12,
        failures: 0,
    });
    let mut rolled = worker(
        "日本語の名前のとても長いワーカー",
        "eager",
        Stopping,
        vec![instance(
            "日本語の名前のとても長いワーカー",
            Some(77),
            Stopping,
            90_061,
            3,
            Some("killed by SIGSEGV (11), core dumped, after 3 days and 4 hours of service"),
        )],
    );
    rolled.generation = 12;
    rolled.instances[0].generation = 12;
    let pool = vec![
        instance("app-1", Some(4711), Running, 7 * 86_400 + 3 * 3600, 0, None),
        instance("app-2", None, Failed, 5, 5, Some("exit status 3")),
        instance("app-3", None, Backoff, 1, 2, Some("killed by SIGKILL")),
        instance("app-4", Some(4712), Starting, 0, 1, Some("exit status 1")),
    ];
    let mut old = instance("api", Some(4713), Running, 86_400, 0, None);
    let long = "serving 3 clients\u{1b}[2J, ".repeat(6);
    old.status = Some(long + "and so on");
    let mut new = instance("api", Some(4714), Starting, 1, 0, None);
    new.generation = 2;
    let mut rolling = worker("api", "eager", Starting, vec![old.clone(), new]);
    rolling.generation = 2;
    old.name = "web".to_owned();
    old.reloading = true;
    let reloading = worker("web", "eager", Running, vec![old.clone()]);
    old.name = "shop".to_owned();
    let mut rolled_back = worker("shop", "eager", Degraded, vec![old]);
    rolled_back.setback = Some("shop: exited with status 3 after 12 ms".to_owned());
    let long = "unix:/run/user/1000/a/folder/that/nobody/wanted/to/be/so/deep/app.sock";
    Status {
        daemon: Some(Daemon {
            version: "0.9.0".to_owned(),
            pid: 700,
            since: "2026-01-30T12:00:00Z".to_owned(),
            version_since: "2026-01-31T12:00:00Z".to_owned(),
            configuration: Some("/etc/listend.yaml".to_owned()),
            binary: Some(Binary {
                path: "/usr/bin/listend".to_owned(),
                device: 65024,
                inode: 131_842,
                modified: 1_769_860_800_000_000_000,
            }),
        }),
        listeners: vec![
            listener(
                "web",
                ListenerState::Listening,
                &[
                    ("127.0.0.1:8080", "tcp", tcp),
                    ("[::1]:8080", "tcp", queue(Some(0), Some(4096), None)),
                ],
            ),
            listener(
                "app",
                ListenerState::Full,
                &[(long, "unix", queue(Some(129), Some(128), Some(17)))],
            ),
            listener(
                "spool",
                ListenerState::Listening,
                &[("fifo:/run/spool", "fifo", None)],
            ),
            listener(
                "a-listener-whose-name-is-longer-than-anybody-expected",
                ListenerState::Missing,
                &[("udp://:53", "udp", queue(None, None, Some(4)))],
            ),
            listener("bare", ListenerState::Damaged, &[]),
            listener(
                "evil\u{1b}[2J",
                ListenerState::Other("melted".to_owned()),
                &[("unix:@a\nb", "unix", queue(Some(1), None, None))],
            ),
        ],
        workers: vec![
            worker(
                "batch",
                "on-demand",
                Waiting,
                vec![instance(
                    "batch",
                    None,
                    Waiting,
                    3600,
                    0,
                    Some("exit status 0"),
                )],
            ),
            worker("app", "eager", Degraded, pool),
            mail,
            rolled,
            rolling,
            reloading,
            rolled_back,
            worker(
                "off",
                "eager",
                Stopped,
                vec![instance("off", None, Stopped, 60, 0, None)],
            ),
            worker("idle", "per-connection", Waiting, Vec::new()),
        ],
    }
}

#[track_caller]
fn is_golden(file: &str, got: &str) {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).expect("write the golden file");
    }
    let want = std::fs::read_to_string(&path).expect("read the golden file");
    assert_eq!(got, want, "{file}");
}

#[test]
fn the_table_is_as_it_was() {
    is_golden("status-80.txt", &table(&example(), 80, Style::Plain, NOON));
    is_golden(
        "status-120.txt",
        &table(&example(), 120, Style::Plain, NOON),
    );
    assert_eq!(table(&Status::default(), 80, Style::Plain, NOON), "");
}

#[test]
fn colours_change_nothing_but_the_colour() {
    let coloured = table(&example(), 80, Style::Colour, NOON);
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    let mut escapes = 0;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').expect("the end of an escape").1;
        escapes += 1;
    }
    plain.push_str(rest);
    assert_eq!(plain, table(&example(), 80, Style::Plain, NOON));
    assert!(escapes > 10);
}

#[test]
fn trouble_is_told_in_words() {
    assert!(!all_is_well(&example()));
    assert_eq!(
        troubles(&example()),
        [
            "listener `app` is full",
            "listener `a-listener-whose-name-is-longer-than-anybody-expected` is missing",
            "listener `bare` is damaged",
            "listener `evil\u{1b}[2J` is melted",
            "instance `app-2` of worker `app`: failed: exit status 3",
            "instance `app-3` of worker `app`: backoff: killed by SIGKILL",
            "worker `shop`: rolled back: shop: exited with status 3 after 12 ms",
        ]
    );
}

#[test]
fn ten_thousand_listeners_are_ten_thousand_lines() {
    let one = |n: usize| {
        let address = format!("127.0.0.1:{n}");
        let sockets = [(address.as_str(), "tcp", queue(Some(0), Some(128), Some(0)))];
        listener(&format!("web-{n}"), ListenerState::Listening, &sockets)
    };
    let status = Status {
        daemon: None,
        listeners: (0..10_000).map(one).collect(),
        workers: Vec::new(),
    };
    let text = table(&status, 80, Style::Plain, NOON);
    assert_eq!(text.lines().count(), 10_001);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
    let frame = Reply::last(&status);
    let frame = Expects::One.frame(&frame).expect("a reply");
    let mut outbox = Outbox::default();
    assert_eq!(outbox.push(frame), Ok(()));
}

/// Bytes with NULs among them more often than chance would have it.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![2 => Just(0u8), 5 => any::<u8>()], 0..400)
}

fn frames(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut inbox = Inbox::default();
    let mut out = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let length = cuts.next().map_or(rest.len(), |cut| (*cut).min(rest.len()));
        let (chunk, after) = rest.split_at(length);
        inbox.receive(chunk);
        rest = after;
        while let Some(frame) = inbox.next_frame().expect("short frames") {
            out.push(frame);
        }
    }
    out
}

proptest! {
    #[test]
    fn frames_do_not_depend_on_how_they_are_cut(
        bytes in stream(),
        cuts in prop::collection::vec(1usize..50, 1..10),
    ) {
        let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
        expected.pop();
        prop_assert_eq!(&frames(&bytes, &cuts), &expected);
        prop_assert_eq!(&frames(&bytes, &[1]), &expected);
        prop_assert_eq!(&frames(&bytes, &[]), &expected);
    }

    #[test]
    fn what_goes_into_an_outbox_comes_out(
        frames in prop::collection::vec(prop::collection::vec(1u8.., 0..40), 0..40),
        writes in prop::collection::vec(0usize..60, 1..40),
    ) {
        let mut outbox = Outbox::default();
        let mut written = Vec::new();
        let mut writes = writes.iter().cycle();
        for frame in &frames {
            prop_assert_eq!(outbox.push(frame), Ok(()));
            let count = writes.next().map_or(0, |count| (*count).min(outbox.pending().len()));
            written.extend_from_slice(&outbox.pending()[..count]);
            outbox.written(count);
        }
        written.extend_from_slice(outbox.pending());
        let expected: Vec<u8> = frames.iter().flat_map(|frame| [frame.as_slice(), &[0]].concat()).collect();
        prop_assert_eq!(written, expected);
    }

    #[test]
    fn no_frame_is_too_odd_to_be_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Call::read(&bytes);
    }

    #[test]
    fn no_call_is_too_odd_to_be_answered(
        method in prop_oneof![
            prop::sample::select(methods().collect::<Vec<_>>()),
            ".{0,40}",
        ],
        key in prop_oneof![Just("worker".to_owned()), Just("lines".to_owned()), ".{0,10}"],
        number in any::<i64>(),
        more in any::<bool>(),
    ) {
        let text = json!({ "method": method, "parameters": { key: number }, "more": more });
        let call = Call::read(text.to_string().as_bytes()).expect("a call");
        prop_assert_eq!(&call.method, &method);
        if let Err(error) = Request::of(call, Access::Look) {
            prop_assert!(error.name().contains('.'));
        }
    }

    #[test]
    fn lines_fit_whatever_the_names(
        name in "[ -~\u{e9}\u{65e5}\u{672c}]{0,60}",
        address in "[ -~\u{e9}\u{65e5}\u{672c}\n\u{1b}]{0,120}",
        columns in 70usize..200,
    ) {
        let sockets = [(address.as_str(), "unix", queue(Some(1), Some(2), Some(3)))];
        let one = instance(&name, Some(1), WorkerState::Running, 1, 1, Some(&address));
        let status = Status {
            daemon: None,
            listeners: vec![listener(&name, ListenerState::Listening, &sockets)],
            workers: vec![worker("a worker", "eager", WorkerState::Running, vec![one])],
        };
        let text = table(&status, columns, Style::Plain, NOON);
        // The title, the listener; a blank line; the title, the worker, its instance.
        prop_assert_eq!(text.lines().count(), 6);
        for line in text.lines() {
            let width: usize = line.chars().map(|c| 1 + usize::from("日本".contains(c))).sum();
            prop_assert!(width <= columns, "{width} columns: {line}");
        }
    }
}

#[test]
fn a_long_call_is_read_in_linear_time_whatever_the_chunks() {
    // One byte at a time through a whole megabyte: looking at everything again each time would take
    // half a million times as long, and this test would never end.
    let mut inbox = Inbox::default();
    for _ in 0..MAX_FRAME {
        inbox.receive(b" ");
        assert_eq!(inbox.next_frame(), Ok(None));
    }
    inbox.receive(b"\0");
    assert!(matches!(inbox.next_frame(), Ok(Some(frame)) if frame.len() == MAX_FRAME));
    // And as many frames in one chunk.
    inbox.receive(&vec![0; MAX_FRAME]);
    for _ in 0..MAX_FRAME {
        assert_eq!(inbox.next_frame(), Ok(Some(Vec::new())));
    }
    assert_eq!(inbox.next_frame(), Ok(None));
}
