//! The screen of `listend top`, as a function of its state.

use super::rows::{self, Row};
use super::state::{Dialog, Pane, TopState};
use super::style::Theme;
use crate::cli::stream::not_kept;
use crate::control::{Severity, Worker, clean, cut_end, rfc3339, troubles, width};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

/// The least that makes sense; what is smaller says so.
const SMALLEST: (u16, u16) = (40, 10);

const KEYS: &str = " ↑↓/jk move  Tab lists  / filter  l lines  r restart  s stop  ? help  q quit";

const HELP: [&str; 12] = [
    "up, down, k, j     move",
    "Page Up, Page Down move faster",
    "Home, End, g, G    first, last",
    "Tab                listeners or workers",
    "/                  show only what has this text",
    "l                  lines of the worker, or events",
    "r                  restart the worker",
    "s                  stop the worker",
    "S                  start the worker",
    "Escape             clear message and filter",
    "?, h               this help",
    "q, Ctrl-C          quit",
];

/// Draws everything. `now` is in seconds since 1970.
pub fn draw(frame: &mut Frame, top: &TopState, now: u64, theme: Theme) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let words = format!("listend top needs {} by {}", SMALLEST.0, SMALLEST.1);
        frame.render_widget(Paragraph::new(words), area);
        return;
    }
    let (of_listeners, of_workers) = heights(top, area.height);
    let [head, listeners, workers, events, notice, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(of_listeners),
        Constraint::Length(of_workers),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(area);
    header(frame, head, top, now, theme);
    let (titles, lines, chosen) = rows::listeners(top, listeners, theme);
    list(
        frame,
        listeners,
        &titles,
        lines,
        chosen,
        top.pane == Pane::Listeners,
    );
    let (titles, lines, chosen) = rows::workers(top, workers, now, theme);
    list(
        frame,
        workers,
        &titles,
        lines,
        chosen,
        top.pane == Pane::Workers,
    );
    match top.wants_lines_of() {
        Some(worker) => lines_list(frame, events, top, worker),
        None => events_list(frame, events, top),
    }
    let words = top.notice.as_deref().unwrap_or("");
    frame.render_widget(
        Paragraph::new(format!(" {}", fit(words, notice.width, 1))),
        notice,
    );
    footer(frame, foot, top, theme);
    if top.dialog == Dialog::Help {
        help(frame, area);
    }
}

/// The heights of the lists, each with its titles and a blank line. The events have five lines where
/// there are so many to spare; of the others neither list takes more than half while the other needs
/// them.
fn heights(top: &TopState, screen: u16) -> (u16, u16) {
    let around = 4;
    let room = usize::from(screen).saturating_sub(around);
    let room = room - (room / 4).min(5);
    let wants = |lines: usize| lines.max(1) + 2;
    let listeners = wants(rows::listener_lines(top));
    let workers = wants(rows::worker_lines(top));
    let half = room / 2;
    let first = listeners.min(half.max(room.saturating_sub(workers)));
    let second = workers.min(room - first);
    // Both are parts of the height of a screen.
    let lines = |number: usize| u16::try_from(number).unwrap_or(screen);
    (lines(first), lines(second))
}

fn header(frame: &mut Frame, area: Rect, top: &TopState, now: u64, theme: Theme) {
    let time = rfc3339(now);
    let time = time.split(['T', 'Z']).nth(1).unwrap_or("").to_owned() + "Z ";
    let room = area.width.saturating_sub(16);
    let title = format!(" listend top  {}", fit(&top.daemon, room, 10));
    let gap = usize::from(area.width).saturating_sub(width(&title) + width(&time));
    let title = format!("{title}{}{time}", " ".repeat(gap));
    let (words, severity) = match &top.lost {
        Some(why) => (why.clone(), Severity::Bad),
        None => summary(top),
    };
    let words = format!(" {}", fit(&words, area.width, 1));
    let lines = vec![
        Line::styled(title, Style::new().add_modifier(Modifier::BOLD)),
        Line::styled(words, theme.style(severity)),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn summary(top: &TopState) -> (String, Severity) {
    let count = |number: usize, one: &str| crate::cli::output::count(number, one);
    let listeners = count(top.all.listeners.len(), "listener");
    let workers = count(top.all.workers.len(), "worker");
    match troubles(&top.all).as_slice() {
        [] => (
            format!("{listeners}, {workers}, no problems"),
            Severity::Good,
        ),
        [one] => (format!("{listeners}, {workers}; {one}"), Severity::Bad),
        [one, others @ ..] => (
            format!("{listeners}, {workers}; {one}; and {} more", others.len()),
            Severity::Bad,
        ),
    }
}

/// A list with its titles; the chosen row is in sight, and inverted where the keys move in this list.
fn list(
    frame: &mut Frame,
    area: Rect,
    titles: &str,
    lines: Vec<Row>,
    chosen: std::ops::Range<usize>,
    has_keys: bool,
) {
    let room = usize::from(area.height).saturating_sub(2).max(1);
    let first = first_line(lines.len(), &chosen, room);
    let mut shown = vec![Line::styled(
        titles.to_owned(),
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
    )];
    let visible = lines.into_iter().enumerate().skip(first).take(room);
    for (index, row) in visible {
        let line = Line::from(row);
        shown.push(match has_keys && chosen.contains(&index) {
            true => line.style(Style::new().add_modifier(Modifier::REVERSED)),
            false => line,
        });
    }
    frame.render_widget(Paragraph::new(shown), area);
}

/// The chosen lines in the middle, unless there is no more above or below.
fn first_line(lines: usize, chosen: &std::ops::Range<usize>, room: usize) -> usize {
    let wanted = chosen.start.saturating_sub(room / 2);
    wanted.min(lines.saturating_sub(room))
}

fn events_list(frame: &mut Frame, area: Rect, top: &TopState) {
    let mut lines = vec![Line::styled(
        format!("{:<1$}", " EVENTS", usize::from(area.width)),
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
    )];
    let room = usize::from(area.height).saturating_sub(1);
    for event in top.events.iter().take(room) {
        let time = event.time.split(['T', 'Z']).nth(1).unwrap_or("");
        let words = fit(&event.message, area.width, 11);
        lines.push(Line::from(format!(" {:<8} {words}", clean(time))));
    }
    if top.events.is_empty() {
        lines.push(Line::from(" none since this was started"));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The last lines of a worker; the newest stands last.
fn lines_list(frame: &mut Frame, area: Rect, top: &TopState, worker: &Worker) {
    let title = format!(" LINES OF {}", fit(&worker.name, area.width, 10));
    let mut shown = vec![Line::styled(
        format!("{title:<0$}", usize::from(area.width)),
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
    )];
    let room = usize::from(area.height).saturating_sub(1);
    let (of, lines) = &top.lines;
    let lines = lines.iter().filter(|_| *of == worker.name);
    let last: Vec<&String> = lines.rev().take(room).collect();
    let line = |text: &&String| Line::from(format!(" {}", fit(text, area.width, 1)));
    shown.extend(last.iter().rev().map(line));
    if last.is_empty() {
        let why = not_kept(worker).unwrap_or_else(|| "none".to_owned());
        shown.push(Line::from(format!(" {}", fit(&why, area.width, 1))));
    }
    frame.render_widget(Paragraph::new(shown), area);
}

fn footer(frame: &mut Frame, area: Rect, top: &TopState, theme: Theme) {
    let (words, style) = match &top.dialog {
        Dialog::Confirm(verb, worker) => {
            let question = format!("{} worker {worker}? y/n", verb.name);
            let words = format!(" {}", fit(&question, area.width, 1));
            let style = theme.style(Severity::Bad).add_modifier(Modifier::REVERSED);
            (words, style)
        }
        Dialog::Filter => {
            let words = format!(" /{}_", fit(&top.filter, area.width, 3));
            (words, Style::new())
        }
        Dialog::None | Dialog::Help if !top.filter.is_empty() => {
            let words = format!("filter: {}  (Escape ends it)", top.filter);
            (format!(" {}", fit(&words, area.width, 1)), Style::new())
        }
        Dialog::None | Dialog::Help => {
            let keys = match theme.unicode {
                true => KEYS.to_owned(),
                false => KEYS.replace("↑↓/", ""),
            };
            (keys, Style::new().add_modifier(Modifier::DIM))
        }
    };
    let filled = format!("{words:<0$}", usize::from(area.width));
    frame.render_widget(Paragraph::new(Span::styled(filled, style)), area);
}

fn help(frame: &mut Frame, area: Rect) {
    let wanted = HELP.iter().map(|line| line.len()).max().unwrap_or(0);
    let columns = u16::try_from(wanted + 4).unwrap_or(area.width);
    let lines = u16::try_from(HELP.len() + 2).unwrap_or(area.height);
    let [middle] = Layout::vertical([Constraint::Length(lines)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let [middle] = Layout::horizontal([Constraint::Length(columns)])
        .flex(ratatui::layout::Flex::Center)
        .areas(middle);
    let text: Vec<Line> = HELP
        .iter()
        .map(|line| Line::from(format!(" {line}")))
        .collect();
    frame.render_widget(Clear, middle);
    let block = Block::bordered().title(" keys ");
    frame.render_widget(Paragraph::new(text).block(block), middle);
}

/// The beginning of a text that fits beside so many columns.
fn fit(text: &str, columns: u16, beside: usize) -> String {
    cut_end(&clean(text), usize::from(columns).saturating_sub(beside))
}

impl From<Row> for Line<'_> {
    fn from(row: Row) -> Self {
        let spans = row.0.into_iter();
        Line::from_iter(spans.map(|(text, style)| Span::styled(text, style)))
    }
}
