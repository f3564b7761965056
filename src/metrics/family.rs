//! Every metric there is: its name, what it means and where its values come from.
//!
//! Names follow the conventions of Prometheus: the unit last, in base units; `_total` behind
//! counters, which the encoder adds.

use super::page::{DaemonRow, ListenerRow, Page, SocketRow, WorkerRow};
use prometheus_client::encoding::{
    CounterValueEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, GaugeValueEncoder,
    LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;
use std::ops::Range;

/// One metric, with all its series.
pub(super) struct Family {
    /// Without the unit, and without what the encoder adds for the kind.
    pub name: &'static str,
    unit: Option<Base>,
    kind: Kind,
    help: &'static str,
    rows: Rows,
}

/// The units in use.
#[derive(Clone, Copy)]
enum Base {
    Seconds,
    Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Info,
}

/// Whose rows of the page have the values.
enum Rows {
    Daemon(fn(&DaemonRow) -> Option<Value>),
    /// Several series, with labels of their own.
    DaemonBy(fn(&DaemonRow) -> Vec<(Further, u64)>),
    Listeners(fn(&ListenerRow) -> Value),
    Sockets(fn(&SocketRow) -> Option<Value>),
    Workers(fn(&WorkerRow) -> Option<Value>),
    /// Several series for each worker, with further labels.
    WorkersBy(fn(&WorkerRow) -> Vec<(Further, u64)>),
}

/// Labels with fixed values, beside `worker` where it is of one.
type Further = &'static [(&'static str, &'static str)];

#[derive(Clone, Copy)]
enum Value {
    Whole(u64),
    Real(f64),
}

const fn family(
    kind: Kind,
    name: &'static str,
    unit: Option<Base>,
    help: &'static str,
    rows: Rows,
) -> Family {
    Family {
        name,
        unit,
        kind,
        help,
        rows,
    }
}

use Base::{Bytes, Seconds};
use Kind::{Counter, Gauge, Info};
use Value::{Real, Whole};

/// In the order in which they are shown.
pub(super) const FAMILIES: &[Family] = &[
    family(
        Gauge,
        "listend_listener_up",
        None,
        "Whether every socket of the listener is bound and accepts clients.",
        Rows::Listeners(|row| Whole(u64::from(row.is_up))),
    ),
    family(
        Gauge,
        "listend_listener_queue_depth",
        None,
        "Connections or messages that wait.",
        Rows::Sockets(|row| row.depth.map(Whole)),
    ),
    family(
        Gauge,
        "listend_listener_queue_limit",
        None,
        "How many connections or messages may wait; of connections the kernel accepts one more.",
        Rows::Sockets(|row| row.limit.map(Whole)),
    ),
    family(
        Gauge,
        "listend_listener_queue",
        Some(Bytes),
        "Bytes that wait, where the kernel counts those: datagrams, FIFOs.",
        Rows::Sockets(|row| row.bytes.map(Whole)),
    ),
    family(
        Gauge,
        "listend_listener_queue_limit",
        Some(Bytes),
        "How many bytes may wait.",
        Rows::Sockets(|row| row.bytes_limit.map(Whole)),
    ),
    family(
        Counter,
        "listend_listener_queue_drops",
        None,
        "Packets of clients that the kernel dropped at this socket.",
        Rows::Sockets(|row| row.drops.map(Whole)),
    ),
    family(
        Gauge,
        "listend_worker_instances",
        None,
        "Instances of the worker, and processes of its connections, by state.",
        Rows::WorkersBy(|row| {
            let states = row.states;
            vec![
                (&[("state", "waiting")], states.waiting),
                (&[("state", "starting")], states.starting),
                (&[("state", "running")], states.running),
                (&[("state", "stopping")], states.stopping),
                (&[("state", "backoff")], states.backoff),
                (&[("state", "failed")], states.failed),
                (&[("state", "stopped")], states.stopped),
            ]
        }),
    ),
    family(
        Gauge,
        "listend_worker_ready_instances",
        None,
        "Instances that run their program and are ready.",
        Rows::Workers(|row| Some(Whole(row.states.running))),
    ),
    family(
        Gauge,
        "listend_worker_failed_instances",
        None,
        "Instances that have failed and are not restarted.",
        Rows::Workers(|row| Some(Whole(row.states.failed))),
    ),
    family(
        Gauge,
        "listend_worker_restart_backoff",
        Some(Seconds),
        "The longest time until a crashed instance is restarted.",
        Rows::Workers(|row| Some(Real(row.backoff.as_secs_f64()))),
    ),
    family(
        Counter,
        "listend_worker_starts",
        None,
        "Processes that executed the program.",
        Rows::Workers(|row| Some(Whole(row.counters.starts))),
    ),
    family(
        Counter,
        "listend_worker_exits",
        None,
        "Processes that exited; an error is a failure by the restart policy on-failure.",
        Rows::WorkersBy(|row| {
            let exits = row.counters.exits;
            vec![
                (&[("reason", "exit"), ("result", "ok")], exits.code_ok),
                (&[("reason", "exit"), ("result", "error")], exits.code_error),
                (&[("reason", "signal"), ("result", "ok")], exits.signal_ok),
                (
                    &[("reason", "signal"), ("result", "error")],
                    exits.signal_error,
                ),
                (&[("reason", "launch"), ("result", "error")], exits.launch),
            ]
        }),
    ),
    family(
        Gauge,
        "listend_worker_degraded",
        None,
        "Whether the last rollout of the worker was rolled back, or the processes of its \
         connections fail.",
        Rows::Workers(|row| Some(Whole(u64::from(row.is_degraded)))),
    ),
    family(
        Counter,
        "listend_worker_rollouts",
        None,
        "Rollouts of the worker that succeeded.",
        Rows::Workers(|row| Some(Whole(row.counters.rollouts))),
    ),
    family(
        Counter,
        "listend_worker_rollbacks",
        None,
        "Rollouts of the worker that were rolled back.",
        Rows::Workers(|row| Some(Whole(row.counters.rollbacks))),
    ),
    family(
        Counter,
        "listend_worker_start_timeouts",
        None,
        "Processes that were stopped because they were not ready in time.",
        Rows::Workers(|row| Some(Whole(row.counters.start_timeouts))),
    ),
    family(
        Counter,
        "listend_worker_watchdog_timeouts",
        None,
        "Processes that were stopped because they sent no keep-alive in time.",
        Rows::Workers(|row| Some(Whole(row.counters.watchdog_timeouts))),
    ),
    family(
        Counter,
        "listend_worker_stop_timeouts",
        None,
        "Processes that were killed because they did not stop in time.",
        Rows::Workers(|row| Some(Whole(row.counters.stop_timeouts))),
    ),
    family(
        Counter,
        "listend_worker_activations",
        None,
        "How often a client started the worker.",
        Rows::Workers(|row| Some(Whole(row.counters.activations))),
    ),
    family(
        Counter,
        "listend_worker_rate_limited",
        None,
        "How often a limit of starts or accepts was reported as reached, at most once a minute.",
        Rows::Workers(|row| Some(Whole(row.counters.rate_limited))),
    ),
    family(
        Gauge,
        "listend_worker_connections",
        None,
        "Open connections of a per-connection worker.",
        Rows::Workers(|row| Some(Whole(u64::from(row.connections?.live)))),
    ),
    family(
        Counter,
        "listend_worker_connections_accepted",
        None,
        "Connections taken out of the accept queue for the worker.",
        Rows::Workers(|row| Some(Whole(row.connections?.accepted))),
    ),
    family(
        Counter,
        "listend_worker_connections_refused",
        None,
        "Connections closed unserved, by the limit that was reached.",
        Rows::WorkersBy(|row| match row.connections {
            None => Vec::new(),
            Some(_) => vec![
                (&[("reason", "max_connections")], row.counters.refused_all),
                (
                    &[("reason", "max_connections_per_source")],
                    row.counters.refused_source,
                ),
            ],
        }),
    ),
    family(
        Counter,
        "listend_worker_accept_pauses",
        None,
        "How often connections could not be accepted for lack of descriptors or memory.",
        Rows::Workers(|row| row.connections.map(|_| Whole(row.counters.accept_pauses))),
    ),
    family(
        Counter,
        "listend_reloads",
        None,
        "Successful reloads of the configuration.",
        Rows::Daemon(|row| Some(Whole(row.reloads))),
    ),
    family(
        Counter,
        "listend_notifications",
        None,
        "Messages of workers (sd_notify), by result.",
        Rows::DaemonBy(|row| {
            let notices = row.notices;
            vec![
                (&[("result", "ok")], notices.taken),
                (&[("result", "malformed")], notices.malformed),
                (&[("result", "foreign")], notices.foreign),
                (&[("result", "truncated")], notices.truncated),
            ]
        }),
    ),
    family(
        Info,
        "listend_build",
        None,
        "The version of listend.",
        Rows::Daemon(|_| Some(Whole(1))),
    ),
    family(
        Gauge,
        "listend_start_time",
        Some(Seconds),
        "When listend started, since the epoch.",
        Rows::Daemon(|row| Some(Real(row.started.as_secs_f64()))),
    ),
    family(
        Gauge,
        "process_open_fds",
        None,
        "Descriptors that listend has open.",
        Rows::Daemon(|row| row.open_fds.map(Whole)),
    ),
    family(
        Gauge,
        "process_max_fds",
        None,
        "Descriptors that listend may have open.",
        Rows::Daemon(|row| row.max_fds.map(Whole)),
    ),
    family(
        Gauge,
        "process_resident_memory",
        Some(Bytes),
        "Resident memory of listend.",
        Rows::Daemon(|row| row.resident.map(Whole)),
    ),
    family(
        Gauge,
        "process_virtual_memory",
        Some(Bytes),
        "Virtual memory of listend.",
        Rows::Daemon(|row| row.virtual_memory.map(Whole)),
    ),
    family(
        Counter,
        "process_cpu",
        Some(Seconds),
        "User and system time of listend.",
        Rows::Daemon(|row| row.cpu.map(Real)),
    ),
];

impl Family {
    /// How many rows of the page it goes through.
    pub(super) fn rows(&self, page: &Page) -> usize {
        match self.rows {
            Rows::Daemon(_) | Rows::DaemonBy(_) => 1,
            Rows::Listeners(_) => page.listeners.len(),
            Rows::Sockets(_) => page.sockets.len(),
            Rows::Workers(_) | Rows::WorkersBy(_) => page.workers.len(),
        }
    }

    pub(super) fn help(&self) -> &'static str {
        self.help
    }

    pub(super) fn unit(&self) -> Option<Unit> {
        self.unit.map(|unit| match unit {
            Base::Seconds => Unit::Seconds,
            Base::Bytes => Unit::Bytes,
        })
    }

    pub(super) fn metric_type(&self) -> MetricType {
        match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
            Kind::Info => MetricType::Info,
        }
    }

    /// Writes the series of these rows.
    pub(super) fn encode(
        &self,
        page: &Page,
        rows: Range<usize>,
        to: &mut MetricEncoder,
    ) -> fmt::Result {
        match self.rows {
            Rows::Daemon(value) => match (self.kind, value(&page.daemon)) {
                (_, None) => Ok(()),
                (Kind::Info, Some(_)) => to.encode_info(&[("version", env!("CARGO_PKG_VERSION"))]),
                (Kind::Gauge | Kind::Counter, Some(value)) => self.one(value, to),
            },
            Rows::DaemonBy(values) => {
                for (further, value) in values(&page.daemon) {
                    let labels = Labels {
                        first: None,
                        socket: None,
                        further,
                    };
                    self.one(Whole(value), &mut to.encode_family(&labels)?)?;
                }
                Ok(())
            }
            Rows::Listeners(value) => {
                for row in page.listeners.get(rows).unwrap_or_default() {
                    let labels = Labels {
                        first: Some(("listener", &row.name)),
                        socket: None,
                        further: &[],
                    };
                    self.one(value(row), &mut to.encode_family(&labels)?)?;
                }
                Ok(())
            }
            Rows::Sockets(value) => {
                for row in page.sockets.get(rows).unwrap_or_default() {
                    let Some(value) = value(row) else { continue };
                    let labels = Labels {
                        first: Some(("listener", &row.listener)),
                        socket: Some((row.socket, &row.address)),
                        further: &[],
                    };
                    self.one(value, &mut to.encode_family(&labels)?)?;
                }
                Ok(())
            }
            Rows::Workers(value) => {
                for row in page.workers.get(rows).unwrap_or_default() {
                    let Some(value) = value(row) else { continue };
                    self.of_worker(row, &[], value, to)?;
                }
                Ok(())
            }
            Rows::WorkersBy(values) => {
                for row in page.workers.get(rows).unwrap_or_default() {
                    for (further, value) in values(row) {
                        self.of_worker(row, further, Whole(value), to)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn of_worker(
        &self,
        row: &WorkerRow,
        further: Further,
        value: Value,
        to: &mut MetricEncoder,
    ) -> fmt::Result {
        let labels = Labels {
            first: Some(("worker", &row.name)),
            socket: None,
            further,
        };
        self.one(value, &mut to.encode_family(&labels)?)
    }

    fn one(&self, value: Value, to: &mut MetricEncoder) -> fmt::Result {
        match self.kind {
            Kind::Counter => to.encode_counter::<NoLabelSet, Value, f64>(&value, None),
            Kind::Gauge | Kind::Info => to.encode_gauge(&value),
        }
    }
}

/// The labels of one series.
struct Labels<'p> {
    first: Option<(&'static str, &'p str)>,
    socket: Option<(u32, &'p str)>,
    further: Further,
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        if let Some(first) = self.first {
            first.encode(encoder.encode_label())?;
        }
        if let Some((socket, address)) = self.socket {
            ("socket", socket).encode(encoder.encode_label())?;
            ("address", address).encode(encoder.encode_label())?;
        }
        for label in self.further {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder) -> fmt::Result {
        match self {
            Whole(value) => EncodeGaugeValue::encode(value, encoder),
            Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder) -> fmt::Result {
        match self {
            Whole(value) => EncodeCounterValue::encode(value, encoder),
            Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}
