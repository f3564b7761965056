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

/// A metric, with all its series.
pub(super) struct Family {
    /// The name without the unit, and without what the encoder adds for the kind.
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

/// The rows of the page that have the values.
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

/// One entry for each metric: kind, name, unit if it has one, meaning, and where the values are.
macro_rules! families {
    ($($kind:ident $name:ident $(in $unit:ident)?: $help:literal, $rows:expr;)*) => {
        &[$(Family {
            name: stringify!($name),
            unit: unit!($($unit)?),
            kind: Kind::$kind,
            help: $help,
            rows: $rows,
        },)*]
    };
}

macro_rules! unit {
    () => {
        None
    };
    ($unit:ident) => {
        Some(Base::$unit)
    };
}

use Rows::{Daemon, DaemonBy, Listeners, Sockets, Workers, WorkersBy};
use Value::{Real, Whole};

/// All metrics, in the order in which they are shown.
pub(super) const FAMILIES: &[Family] = families! {
    Gauge listend_listener_up: "Whether every socket of the listener is bound and accepts clients.",
        Listeners(|row| Whole(u64::from(row.is_up)));
    Gauge listend_listener_queue_depth: "Connections or messages that wait.",
        Sockets(|row| row.depth.map(Whole));
    Gauge listend_listener_queue_limit:
        "How many connections or messages may wait; of connections the kernel accepts one more.",
        Sockets(|row| row.limit.map(Whole));
    Gauge listend_listener_queue in Bytes:
        "Bytes that wait, where the kernel counts those: datagrams, FIFOs.",
        Sockets(|row| row.bytes.map(Whole));
    Gauge listend_listener_queue_limit in Bytes: "How many bytes may wait.",
        Sockets(|row| row.bytes_limit.map(Whole));
    Counter listend_listener_queue_drops: "Packets of clients that the kernel dropped at this socket.",
        Sockets(|row| row.drops.map(Whole));
    Gauge listend_worker_instances: "Instances of the worker, and processes of its connections, by state.",
        WorkersBy(|row| {
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
        });
    Gauge listend_worker_ready_instances: "Instances that run their program and are ready.",
        Workers(|row| Some(Whole(row.states.running)));
    Gauge listend_worker_failed_instances: "Instances that have failed and are not restarted.",
        Workers(|row| Some(Whole(row.states.failed)));
    Gauge listend_worker_restart_backoff in Seconds:
        "The longest time until a crashed instance is restarted.",
        Workers(|row| Some(Real(row.backoff.as_secs_f64())));
    Counter listend_worker_starts: "Processes that executed the program.",
        Workers(|row| Some(Whole(row.counters.starts)));
    Counter listend_worker_exits:
        "Processes that exited; an error is a failure by the restart policy on-failure.",
        WorkersBy(|row| {
            let exits = row.counters.exits;
            vec![
                (&[("reason", "exit"), ("result", "ok")], exits.code_ok),
                (&[("reason", "exit"), ("result", "error")], exits.code_error),
                (&[("reason", "signal"), ("result", "ok")], exits.signal_ok),
                (&[("reason", "signal"), ("result", "error")], exits.signal_error),
                (&[("reason", "launch"), ("result", "error")], exits.launch),
            ]
        });
    Gauge listend_worker_degraded:
        "Whether the last rollout of the worker was rolled back, or the processes of its connections fail.",
        Workers(|row| Some(Whole(u64::from(row.is_degraded))));
    Counter listend_worker_rollouts: "Rollouts of the worker that succeeded.",
        Workers(|row| Some(Whole(row.counters.rollouts)));
    Counter listend_worker_rollbacks: "Rollouts of the worker that were rolled back.",
        Workers(|row| Some(Whole(row.counters.rollbacks)));
    Counter listend_worker_start_timeouts:
        "Processes that were stopped because they were not ready in time.",
        Workers(|row| Some(Whole(row.counters.start_timeouts)));
    Counter listend_worker_watchdog_timeouts:
        "Processes that were stopped because they sent no keep-alive in time.",
        Workers(|row| Some(Whole(row.counters.watchdog_timeouts)));
    Counter listend_worker_stop_timeouts: "Processes that were killed because they did not stop in time.",
        Workers(|row| Some(Whole(row.counters.stop_timeouts)));
    Counter listend_worker_activations: "How often a client started the worker.",
        Workers(|row| Some(Whole(row.counters.activations)));
    Counter listend_worker_scalings: "How often an instance was added or removed because of the queues.",
        Workers(|row| Some(Whole(row.counters.scalings)));
    Counter listend_worker_idle_stops: "How often the worker was stopped because no client used it.",
        Workers(|row| Some(Whole(row.counters.idle_stops)));
    Counter listend_worker_rate_limited:
        "How often a limit of starts or accepts was reported as reached, at most once a minute.",
        Workers(|row| Some(Whole(row.counters.rate_limited)));
    Gauge listend_worker_connections: "Open connections of a per-connection worker.",
        Workers(|row| Some(Whole(u64::from(row.connections?.live))));
    Counter listend_worker_connections_accepted:
        "Connections taken out of the accept queue for the worker.",
        Workers(|row| Some(Whole(row.connections?.accepted)));
    Counter listend_worker_connections_refused:
        "Connections closed unserved, by the limit that was reached.",
        WorkersBy(|row| match row.connections {
            None => Vec::new(),
            Some(_) => vec![
                (&[("reason", "max_connections")], row.counters.refused_all),
                (&[("reason", "max_connections_per_source")], row.counters.refused_source),
            ],
        });
    Counter listend_worker_accept_pauses:
        "How often connections could not be accepted for lack of descriptors or memory.",
        Workers(|row| row.connections.map(|_| Whole(row.counters.accept_pauses)));
    Counter listend_reloads: "Successful reloads of the configuration.",
        Daemon(|row| Some(Whole(row.reloads)));
    Counter listend_notifications: "Messages of workers (sd_notify), by result.",
        DaemonBy(|row| {
            let notices = row.notices;
            vec![
                (&[("result", "ok")], notices.taken),
                (&[("result", "malformed")], notices.malformed),
                (&[("result", "foreign")], notices.foreign),
                (&[("result", "truncated")], notices.truncated),
            ]
        });
    Info listend_build: "The version of listend.",
        Daemon(|_| Some(Whole(1)));
    Gauge listend_start_time in Seconds: "When listend started, since the epoch.",
        Daemon(|row| Some(Real(row.started.as_secs_f64())));
    Gauge process_open_fds: "Descriptors that listend has open.",
        Daemon(|row| row.open_fds.map(Whole));
    Gauge process_max_fds: "Descriptors that listend may have open.",
        Daemon(|row| row.max_fds.map(Whole));
    Gauge process_resident_memory in Bytes: "Resident memory of listend.",
        Daemon(|row| row.resident.map(Whole));
    Gauge process_virtual_memory in Bytes: "Virtual memory of listend.",
        Daemon(|row| row.virtual_memory.map(Whole));
    Counter process_cpu in Seconds: "User and system time of listend.",
        Daemon(|row| row.cpu.map(Real));
};

impl Family {
    /// The number of rows of the page that the metric is made from.
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
