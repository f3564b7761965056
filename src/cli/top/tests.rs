use super::draw::draw;
use super::state::{Key, TopState, Wish};
use super::style::Theme;
use crate::control::{
    Connections, Event, Instance, Listener, ListenerState, Progress, Queue, Socket, Status, Usage,
    Worker, WorkerState, rfc3339,
};
use crate::verb::{RESTART, START, STOP};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use std::time::Duration;

/// Noon of the last of January 2026.
const NOON: u64 = 1_769_860_800;

const PLAIN: Theme = Theme {
    colour: false,
    unicode: true,
};

fn listener(name: &str, state: ListenerState, sockets: &[(&str, u64, Option<u64>)]) -> Listener {
    let socket = |(address, depth, drops): &(&str, u64, Option<u64>)| Socket {
        address: (*address).to_owned(),
        kind: "tcp".to_owned(),
        queue: Some(Queue {
            depth: Some(*depth),
            limit: Some(128),
            drops: *drops,
        }),
        shard: None,
        flows: None,
    };
    Listener {
        name: name.to_owned(),
        sockets: sockets.iter().map(socket).collect(),
        state,
        workers: vec!["app".to_owned()],
        detail: None,
    }
}

fn instance(name: &str, pid: Option<u32>, state: WorkerState, last: Option<&str>) -> Instance {
    Instance {
        name: name.to_owned(),
        generation: 3,
        pid,
        state,
        retrying: false,
        reloading: false,
        status: None,
        since: rfc3339(NOON - 4000),
        restarts: 2,
        last_exit: last.map(str::to_owned),
        exit_status: None,
        exit_signal: None,
        next_try: None,
        usage: None,
    }
}

fn worker(name: &str, state: WorkerState, instances: Vec<Instance>) -> Worker {
    Worker {
        name: name.to_owned(),
        activation: "eager".to_owned(),
        generation: 3,
        state,
        setback: None,
        scaling: None,
        unused_since: None,
        instances,
        listeners: vec!["web".to_owned()],
        output: None,
        connections: None,
        detail: None,
    }
}

fn status(depth: u64) -> Status {
    let web = [("127.0.0.1:8080", depth, Some(0)), ("[::1]:8080", 0, None)];
    let mut mail = worker("mail", WorkerState::Waiting, Vec::new());
    mail.connections = Some(Connections {
        live: 1,
        accepted: 4711,
        refused: 12,
        failures: 0,
    });
    let pool = vec![
        instance("app.0", Some(4711), WorkerState::Running, None),
        instance("app.1", None, WorkerState::Failed, Some("exit status 3")),
    ];
    let batch = instance("batch", None, WorkerState::Waiting, Some("exit status 0"));
    Status {
        daemon: None,
        listeners: vec![
            listener("web", ListenerState::Listening, &web),
            listener(
                "local",
                ListenerState::Full,
                &[("unix:/run/use/a/path/that/is/deep/app.sock", 129, Some(17))],
            ),
            listener("evil\u{1b}[2J", ListenerState::Missing, &[]),
        ],
        workers: vec![
            worker("app", WorkerState::Degraded, pool),
            worker("batch", WorkerState::Waiting, vec![batch]),
            mail,
        ],
    }
}

fn event(seconds: u64, message: &str) -> Event {
    Event {
        time: rfc3339(NOON - seconds),
        kind: "x".to_owned(),
        message: message.to_owned(),
        ..Event::default()
    }
}

fn example() -> TopState {
    let mut top = TopState::new("/run/listend/control.sock".to_owned(), status(0));
    for depth in [1, 2, 4, 8, 16, 32, 64, 3] {
        top.took(status(depth));
    }
    top.happened(event(90, "app.1: exited with status 3"));
    top.happened(event(30, "listener local: its queue is full, 129 of 128"));
    top
}

fn drawn(top: &TopState, columns: u16, rows: u16, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal");
    let drawn = terminal.draw(|frame| draw(frame, top, NOON, theme));
    drawn.expect("the backend never fails").buffer.clone()
}

/// The screen as lines.
fn lines(top: &TopState, columns: u16, rows: u16, theme: Theme) -> Vec<String> {
    let buffer = drawn(top, columns, rows, theme);
    let line = |y| {
        let row = (0..columns).map(|x| buffer[(x, y)].symbol());
        row.collect::<String>().trim_end().to_owned()
    };
    (0..rows).map(line).collect()
}

#[track_caller]
fn same(lines: &[String], golden: &str) {
    let screen = lines.join("\n") + "\n";
    assert!(screen == golden, "\n{screen}\nis not\n{golden}");
}

#[test]
fn generations_that_overlap_and_one_that_went_back_are_told_apart() {
    let mut old = instance("app.0", Some(4711), WorkerState::Running, None);
    old.generation = 1;
    old.status = Some("serving\u{1b}[2J 3 clients".to_owned());
    let mut new = instance("app.0", Some(4712), WorkerState::Starting, None);
    new.generation = 2;
    let mut rolling = worker("app", WorkerState::Starting, vec![old.clone(), new]);
    rolling.generation = 2;
    old.name = "api".to_owned();
    old.reloading = true;
    let reloading = worker("api", WorkerState::Running, vec![old.clone()]);
    let mut rolled_back = worker("api", WorkerState::Degraded, vec![old]);
    rolled_back.setback = Some("api: not ready after 90 s".to_owned());
    let status = Status {
        daemon: None,
        listeners: Vec::new(),
        workers: vec![rolling, reloading, rolled_back],
    };
    let top = TopState::new("x".to_owned(), status);
    let shown = lines(&top, 80, 24, PLAIN).join("\n");
    let wanted = [
        " api                1 degraded     4711     -     -   1h 6m        2 -",
        "   status: serving?[2J 3 clients",
        "   rolled back: api: not ready after 90 s",
        " app                2 starting",
        "   app.0            1 running      4711     -     -   1h 6m        2 -",
        "     status: serving?[2J 3 clients",
        "   app.0            2 starting     4712     -     -   1h 6m        2 -",
        " api                1 reloading    4711     -     -   1h 6m        2 -",
        "   status: serving?[2J 3 clients",
    ];
    assert!(shown.contains(&wanted.join("\n")), "\n{shown}");
}

#[test]
fn the_screen_of_24_lines() {
    same(
        &lines(&example(), 80, 24, PLAIN),
        include_str!("../../../tests/golden/top-80x24.txt"),
    );
}

#[test]
fn a_larger_screen_shows_more_of_the_past() {
    same(
        &lines(&example(), 120, 40, PLAIN),
        include_str!("../../../tests/golden/top-120x40.txt"),
    );
}

#[test]
fn without_unicode_all_is_ascii() {
    let theme = Theme {
        colour: false,
        unicode: false,
    };
    let mut top = example();
    // What is cut has its mark, which is all that is left.
    top.status.listeners.retain(|one| one.name != "local");
    for line in lines(&top, 120, 40, theme) {
        assert!(line.is_ascii(), "{line}");
    }
}

#[test]
fn no_size_is_too_small() {
    let mut top = example();
    for dialog in ["", "?", "r"] {
        dialog.chars().for_each(|key| {
            top.key(Key::Letter(key));
        });
        // What is cut or left out depends on the width or on the height: each width with each height
        // at a limit, and each height with each width at one.
        for columns in 1..100 {
            for rows in 1..40 {
                let at_a_limit = |n: u16, smallest: u16, last: u16| {
                    n < 3 || (smallest - 1..smallest + 6).contains(&n) || n == last
                };
                if at_a_limit(columns, 40, 99) || at_a_limit(rows, 10, 39) {
                    drawn(&top, columns, rows, PLAIN);
                }
            }
        }
        top.key(Key::Escape);
    }
    assert!(lines(&top, 39, 20, PLAIN)[0].starts_with("listend top needs 40 by 10"));
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    for (colour, wanted) in [(true, true), (false, false)] {
        let theme = Theme {
            colour,
            unicode: true,
        };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        let drawn = terminal.draw(|frame| draw(frame, &example(), NOON, theme));
        let buffer = drawn.expect("the backend never fails").buffer;
        let coloured = buffer.content.iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(coloured, wanted);
    }
}

#[test]
fn keys_move_and_what_acts_asks_first() {
    let mut top = example();
    let chosen = |top: &TopState| top.worker().expect("a worker").name.clone();
    assert_eq!(chosen(&top), "app");
    assert_eq!(top.key(Key::Letter('j')), Wish::Nothing);
    assert_eq!(chosen(&top), "batch");
    top.key(Key::Down);
    top.key(Key::Down);
    assert_eq!(chosen(&top), "mail");
    top.key(Key::Up);
    assert_eq!(top.key(Key::Letter('r')), Wish::Nothing);
    let last = |top: &TopState| lines(top, 80, 24, PLAIN).pop();
    assert_eq!(last(&top).as_deref(), Some(" restart worker batch? y/n"));
    // Neither yes nor no, and then no.
    assert_eq!(top.key(Key::Letter('x')), Wish::Nothing);
    assert_eq!(last(&top).as_deref(), Some(" restart worker batch? y/n"));
    assert_eq!(top.key(Key::Letter('n')), Wish::Nothing);
    assert_eq!(top.key(Key::Letter('y')), Wish::Nothing);
    for (letter, verb) in [('r', &RESTART), ('s', &STOP), ('S', &START)] {
        assert_eq!(top.key(Key::Letter(letter)), Wish::Nothing);
        let act = Wish::Act(verb, "batch".to_owned());
        assert_eq!(top.key(Key::Letter('y')), act);
    }
    // Acting is for workers.
    top.key(Key::Tab);
    top.key(Key::Letter('r'));
    assert_eq!(top.key(Key::Letter('y')), Wish::Nothing);
    top.key(Key::Letter('r'));
    assert_eq!(top.key(Key::Interrupt), Wish::Quit);
    assert_eq!(top.key(Key::Letter('q')), Wish::Quit);
}

#[test]
fn the_worker_that_was_asked_about_is_the_one_that_is_acted_on() {
    let mut top = example();
    top.key(Key::End);
    top.key(Key::Letter('s'));
    // A reload took it away in the meantime, and put others before it.
    let mut other = status(0);
    other.workers.reverse();
    top.took(other);
    let wish = top.key(Key::Letter('y'));
    assert_eq!(wish, Wish::Act(&STOP, "mail".to_owned()));
    assert_eq!(top.worker().expect("a worker").name, "mail");
    top.took(Status::default());
    assert_eq!(top.worker(), None);
    for key in [Key::Down, Key::End, Key::Up, Key::Letter('r')] {
        assert_eq!(top.key(key), Wish::Nothing);
        lines(&top, 80, 24, PLAIN);
    }
}

#[test]
fn what_is_chosen_is_in_sight_however_long_the_list_is() {
    let mut many = Status::default();
    for number in 0..1000 {
        let name = format!("w{number:03}");
        let one = instance(&name, Some(number), WorkerState::Running, None);
        many.workers
            .push(worker(&name, WorkerState::Running, vec![one]));
    }
    let mut top = TopState::new(String::new(), many);
    let sees = |top: &TopState, name: &str| {
        let start = format!(" {name} ");
        lines(top, 80, 24, PLAIN)
            .iter()
            .any(|line| line.starts_with(&start))
    };
    assert!(sees(&top, "w000"));
    for _ in 0..50 {
        top.key(Key::PageDown);
    }
    assert!(sees(&top, "w500"));
    top.key(Key::End);
    assert!(sees(&top, "w999"));
    top.key(Key::Home);
    assert!(sees(&top, "w000"));
}

#[test]
fn what_becomes_of_an_action_and_of_the_daemon_is_shown() {
    let mut top = example();
    let steps = Progress {
        done: 2,
        of: 4,
        ..Progress::default()
    };
    let notice = |top: &TopState| lines(top, 80, 24, PLAIN)[22].clone();
    top.acted(&RESTART, "app", &steps, false);
    assert_eq!(notice(&top), " restart app: 2 of 4");
    top.acted(&RESTART, "app", &steps, true);
    assert_eq!(notice(&top), " restart app: done");
    top.key(Key::Escape);
    assert_eq!(notice(&top), "");
    top.lost = Some("no daemon answers".to_owned());
    assert_eq!(lines(&top, 80, 24, PLAIN)[1], " no daemon answers");
    top.took(status(0));
    assert!(lines(&top, 80, 24, PLAIN)[1].starts_with(" 3 listeners, 3 workers; "));
}

#[test]
fn what_is_wrong_stands_first() {
    let mut now = status(0);
    let bad = worker("zoo", WorkerState::Failed, Vec::new());
    now.workers.push(bad);
    let order = |top: &TopState| -> Vec<String> {
        let workers = top.status.workers.iter();
        workers.map(|one| one.name.clone()).collect()
    };
    let mut top = TopState::new(String::new(), status(0));
    top.took(now.clone());
    let well: Vec<_> = now.workers.iter().filter(|one| one.is_well()).collect();
    let bad = now.workers.iter().filter(|one| !one.is_well());
    let wanted: Vec<_> = bad.chain(well).map(|one| one.name.clone()).collect();
    assert_eq!(order(&top), wanted);
    assert_ne!(order(&top).last().map(String::as_str), Some("zoo"));
}

#[test]
fn a_filter_leaves_what_has_the_text() {
    let mut top = example();
    let names = |top: &TopState| -> Vec<String> {
        top.status
            .workers
            .iter()
            .map(|one| one.name.clone())
            .collect()
    };
    top.key(Key::Letter('/'));
    for letter in ['M', 'a', 'x'] {
        assert_eq!(top.key(Key::Letter(letter)), Wish::Nothing);
    }
    assert_eq!(names(&top), [""; 0]);
    top.key(Key::Backspace);
    assert_eq!(lines(&top, 80, 24, PLAIN)[23], " /Ma_");
    top.key(Key::Enter);
    assert_eq!(names(&top), ["mail"]);
    assert!(lines(&top, 80, 24, PLAIN)[23].starts_with(" filter: Ma "));
    // Keys act again, on what is left; and what is wrong elsewhere is still told.
    top.key(Key::Letter('r'));
    assert_eq!(
        top.key(Key::Letter('y')),
        Wish::Act(&RESTART, "mail".to_owned())
    );
    assert!(lines(&top, 80, 24, PLAIN)[1].contains("listener `local` is full"));
    top.took(status(0));
    assert_eq!(names(&top), ["mail"]);
    top.key(Key::Escape);
    assert_eq!(names(&top), ["app", "batch", "mail"]);
    for (text, wanted) in [("failed", "app"), ("app.1", "app")] {
        top.key(Key::Letter('/'));
        text.chars().for_each(|letter| {
            top.key(Key::Letter(letter));
        });
        assert_eq!(names(&top), [wanted]);
        top.key(Key::Escape);
    }
}

#[test]
fn the_lines_of_the_chosen_worker_take_the_place_of_the_events() {
    let mut top = example();
    assert_eq!(top.wants_lines_of(), None);
    top.key(Key::Letter('l'));
    assert_eq!(
        top.wants_lines_of().map(|one| one.name.as_str()),
        Some("app")
    );
    for number in 0..300 {
        top.wrote("app", format!("app.0 line {number}\u{1b}[2J"));
    }
    let shown = lines(&top, 80, 24, PLAIN).join("\n");
    assert!(shown.contains(" LINES OF app\n"), "{shown}");
    assert!(shown.contains(" app.0 line 299?[2J\n"), "{shown}");
    assert!(!shown.contains("EVENTS"), "{shown}");
    // Those of another are not its own.
    top.key(Key::Down);
    top.all.workers[1].output = Some("journal".to_owned());
    top.took(top.all.clone());
    let shown = lines(&top, 80, 24, PLAIN).join("\n");
    assert!(
        shown.contains("`batch` writes to the journal: journalctl -t batch"),
        "{shown}"
    );
    top.wrote("batch", "batch hello".to_owned());
    let shown = lines(&top, 80, 24, PLAIN).join("\n");
    assert!(shown.contains(" batch hello"), "{shown}");
}

#[test]
fn the_share_of_a_cpu_is_that_of_the_time_between_two_answers() {
    let with = |used: u64| {
        let mut status = status(0);
        status.workers[0].instances[0].usage = Some(Usage {
            processes: 1,
            cpu_milliseconds: used,
            memory_bytes: 35 << 20,
            ..Usage::default()
        });
        status
    };
    let mut top = TopState::new(String::new(), with(1_000));
    let now = with(1_750);
    top.measured(&now, Duration::from_millis(500));
    top.took(now);
    let shown = lines(&top, 80, 24, PLAIN).join("\n");
    assert!(
        shown.contains("running      4711  150%   35M   1h 6m"),
        "{shown}"
    );
}

#[test]
fn what_is_known_of_control_groups_has_columns_where_there_are_some() {
    let without = TopState::new(String::new(), status(0));
    let shown = lines(&without, 120, 24, PLAIN).join("\n");
    assert!(!shown.contains("OOM"), "{shown}");
    let mut with = status(0);
    with.workers[0].instances[0].usage = Some(Usage {
        processes: 1,
        memory_bytes: 35 << 20,
        memory_peak_bytes: Some(64 << 20),
        oom_kills: Some(2),
        ..Usage::default()
    });
    let top = TopState::new(String::new(), with);
    let shown = lines(&top, 120, 24, PLAIN).join("\n");
    assert!(shown.contains("MEM  PEAK OOM  UPTIME"), "{shown}");
    assert!(shown.contains("   -   35M   64M   2   1h 6m"), "{shown}");
    let narrow = lines(&top, 80, 24, PLAIN).join("\n");
    assert!(narrow.contains("  MEM OOM  UPTIME"), "{narrow}");
    assert!(narrow.contains("   -   35M   2   1h 6m"), "{narrow}");
    assert!(!narrow.contains("PEAK"), "{narrow}");
}
