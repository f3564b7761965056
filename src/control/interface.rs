//! The methods: calls become typed requests.

use super::{Access, Call, Error, Expects};
use crate::verb::{self, Command, Takes, VERBS, Verb};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The name of listend's own interface.
pub const INTERFACE: &str = "io.listend.Manager";
/// The name of the interface that every varlink service has.
pub const SERVICE: &str = "org.varlink.service";

/// The interfaces there are, with their definitions.
const DEFINITIONS: [(&str, &str); 2] = [
    (
        SERVICE,
        include_str!("../../docs/org.varlink.service.varlink"),
    ),
    (
        INTERFACE,
        include_str!("../../docs/io.listend.Manager.varlink"),
    ),
];

/// The definition of an interface: what `GetInterfaceDescription` answers as `description`.
///
/// # Errors
///
/// [`Error::InterfaceNotFound`].
pub fn description(interface: &str) -> Result<&'static str, Error> {
    let mut all = DEFINITIONS.iter();
    let found = all.find(|(name, _)| *name == interface);
    found
        .map(|(_, text)| *text)
        .ok_or_else(|| Error::InterfaceNotFound {
            interface: interface.to_owned(),
        })
}

/// The answer of `GetInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// The vendor of the service.
    pub vendor: &'static str,
    /// The name of the service.
    pub product: &'static str,
    /// The version of the running daemon.
    pub version: &'static str,
    /// The address of the project's page; empty if it has none.
    pub url: &'static str,
    /// The names of all interfaces.
    pub interfaces: [&'static str; 2],
}

/// The answer of `GetInfo` for this program.
pub fn info() -> Info {
    Info {
        vendor: "listend",
        product: "listend",
        version: env!("CARGO_PKG_VERSION"),
        url: env!("CARGO_PKG_HOMEPAGE"),
        interfaces: DEFINITIONS.map(|(name, _)| name),
    }
}

/// A call that is understood. The meaning of each is in `docs/io.listend.Manager.varlink`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Answer with [`info`].
    GetInfo,
    /// Answer with [`description`].
    GetInterfaceDescription {
        /// The name of the interface.
        interface: String,
    },
    /// Listeners and workers.
    Status {
        /// The name of the listener or worker to show in detail; `None` for all.
        name: Option<String>,
    },
    /// Events; the client takes several replies.
    Watch {
        /// So many of the past; `None` is none for those who follow, and else all that are kept.
        last: Option<u32>,
        /// Whether future events are left out.
        no_follow: bool,
    },
    /// Do something with a worker.
    Operate {
        /// The row of the verb.
        verb: &'static Verb,
        /// The argument of the verb.
        argument: Argument,
        /// The name of the worker.
        worker: String,
        /// Whether to answer at once.
        no_wait: bool,
    },
    /// Read the configuration again.
    Reload {
        /// Whether the changes are only shown.
        dry_run: bool,
        /// Whether to answer at once.
        no_wait: bool,
    },
    /// Go on as another binary.
    Upgrade {
        /// Its path; `None` is the one that the daemon was started from.
        binary: Option<String>,
        /// Also while a rollout is under way.
        now: bool,
    },
    /// Lines of the log; the client takes several replies.
    Logs {
        /// The worker whose lines are wanted; `None` for all.
        worker: Option<String>,
        /// So many of the past; `None` leaves it to listend.
        lines: Option<u32>,
        /// Whether future lines follow.
        follow: bool,
    },
    /// Open the log files again.
    Reopen,
    /// Try the configuration as it is on disk.
    Check,
    /// All about a listener.
    Explain {
        /// The name of the listener.
        listener: String,
    },
    /// The numbers for a collector.
    Metrics,
    /// Copies of the sockets of listeners, for a process that listend does not start.
    TakeListener {
        /// The names of the listeners.
        names: Vec<String>,
    },
    /// Hold sockets that the client has.
    GiveListener {
        /// The name of the listener.
        name: String,
    },
}

/// The argument of a verb besides the worker, for each of [`Takes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// No argument: the verb alone gives the command.
    Nothing(Command),
    /// The number of instances; `None` is for it to follow the queues.
    Instances(Option<u32>),
    /// A signal as it was written; not checked yet.
    Signal(String),
}

type Decode = fn(&mut Parameters) -> Result<Request, Error>;

/// Whether a method makes sense without `more`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replies {
    /// The method has one answer, and perhaps progress before it.
    One,
    /// The method has any number of answers.
    Several,
}

use Access::{Act, Look};
use Replies::{One, Several};

/// The methods that are not for a worker. [`Access::Look`] is enough for methods that change nothing;
/// `Check` changes nothing that lasts, but it reads files and binds addresses with the rights of the
/// daemon.
const METHODS: [(&str, Access, Replies, Decode); 13] = [
    ("org.varlink.service.GetInfo", Look, One, |_| {
        Ok(Request::GetInfo)
    }),
    (
        "org.varlink.service.GetInterfaceDescription",
        Look,
        One,
        |given| {
            let interface = given.text("interface")?;
            Ok(Request::GetInterfaceDescription { interface })
        },
    ),
    ("io.listend.Manager.Status", Look, One, |given| {
        let name = given.optional_text("name")?;
        Ok(Request::Status { name })
    }),
    ("io.listend.Manager.Watch", Look, Several, |given| {
        Ok(Request::Watch {
            last: given.number("last")?,
            no_follow: given.flag("no_follow")?,
        })
    }),
    ("io.listend.Manager.Reload", Act, One, |given| {
        let worker = given.optional_text("worker")?;
        let dry_run = given.flag("dry_run")?;
        match worker {
            Some(worker) => given.operation(&verb::RELOAD, worker),
            None => Ok(Request::Reload {
                dry_run,
                no_wait: given.flag("no_wait")?,
            }),
        }
    }),
    ("io.listend.Manager.Upgrade", Act, One, |given| {
        Ok(Request::Upgrade {
            binary: given.optional_text("binary")?,
            now: given.flag("now")?,
        })
    }),
    ("io.listend.Manager.Logs", Look, Several, |given| {
        Ok(Request::Logs {
            worker: given.optional_text("worker")?,
            lines: given.number("lines")?,
            follow: given.flag("follow")?,
        })
    }),
    ("io.listend.Manager.Reopen", Act, One, |_| {
        Ok(Request::Reopen)
    }),
    ("io.listend.Manager.Check", Act, One, |_| Ok(Request::Check)),
    ("io.listend.Manager.Explain", Look, One, |given| {
        let listener = given.text("listener")?;
        Ok(Request::Explain { listener })
    }),
    ("io.listend.Manager.Metrics", Look, One, |_| {
        Ok(Request::Metrics)
    }),
    // Beyond that, `grant:` of each listener decides.
    ("io.listend.Manager.TakeListener", Look, One, |given| {
        let names = given.texts("listeners")?;
        Ok(Request::TakeListener { names })
    }),
    ("io.listend.Manager.GiveListener", Act, One, |given| {
        let name = given.text("listener")?;
        Ok(Request::GiveListener { name })
    }),
];

/// The names of all methods, with their interfaces.
pub fn methods() -> impl Iterator<Item = String> {
    let others = METHODS.iter().map(|(name, ..)| (*name).to_owned());
    let verbs = VERBS.iter();
    others.chain(verbs.map(|verb| format!("{INTERFACE}.{}", verb.method)))
}

impl Request {
    /// Reads the request of a call, if the client may make it. A client without any right does not
    /// learn which methods there are.
    ///
    /// # Errors
    ///
    /// [`Error`]: send it as [`super::Reply::error`].
    pub fn of(call: Call, access: Access) -> Result<Request, Error> {
        if access == Access::Nothing {
            return Err(Error::PermissionDenied);
        }
        let mut others = METHODS.iter();
        let mut parameters = Parameters(call.parameters);
        let (request, needed, replies) = match others.find(|(name, ..)| *name == call.method) {
            Some((_, needed, replies, decode)) => (decode(&mut parameters)?, *needed, *replies),
            None => {
                let Some(verb) = verb_of(&call.method) else {
                    return Err(unknown(call.method));
                };
                let worker = parameters.text("worker")?;
                let request = parameters.operation(verb, worker)?;
                (request, Act, One)
            }
        };
        parameters.none_left()?;
        access.permit(needed)?;
        if replies == Several && call.expects != Expects::Several {
            return Err(Error::ExpectedMore);
        }
        Ok(request)
    }
}

fn verb_of(method: &str) -> Option<&'static Verb> {
    let name = method.strip_prefix(INTERFACE)?.strip_prefix('.')?;
    VERBS.iter().find(|verb| verb.method == name)
}

fn unknown(method: String) -> Error {
    match method.rsplit_once('.') {
        Some((interface, _)) if description(interface).is_err() => Error::InterfaceNotFound {
            interface: interface.to_owned(),
        },
        Some(_) | None => Error::MethodNotFound { method },
    }
}

fn invalid(parameter: &str) -> Error {
    Error::InvalidParameter {
        parameter: parameter.to_owned(),
    }
}

/// The parameters that have not been read yet. A null counts as not given.
struct Parameters(Map<String, Value>);

impl Parameters {
    fn take<T>(
        &mut self,
        name: &str,
        typed: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.0.swap_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => typed(value).map(Some).ok_or_else(|| invalid(name)),
        }
    }

    fn optional_text(&mut self, name: &str) -> Result<Option<String>, Error> {
        self.take(name, |value| match value {
            Value::String(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        })
    }

    fn text(&mut self, name: &str) -> Result<String, Error> {
        self.optional_text(name)?.ok_or_else(|| invalid(name))
    }

    /// A list of at least one text, each once.
    fn texts(&mut self, name: &str) -> Result<Vec<String>, Error> {
        let texts = self.take(name, |value| {
            serde_json::from_value::<Vec<String>>(value).ok()
        })?;
        let texts = texts.unwrap_or_default();
        let mut seen = HashSet::new();
        match !texts.is_empty() && texts.iter().all(|text| seen.insert(text)) {
            true => Ok(texts),
            false => Err(invalid(name)),
        }
    }

    fn flag(&mut self, name: &str) -> Result<bool, Error> {
        let flag = self.take(name, |value| value.as_bool())?;
        Ok(flag.unwrap_or(false))
    }

    fn number(&mut self, name: &str) -> Result<Option<u32>, Error> {
        self.take(name, |value| u32::try_from(value.as_u64()?).ok())
    }

    /// Reads the parameters of a verb for a worker.
    fn operation(&mut self, verb: &'static Verb, worker: String) -> Result<Request, Error> {
        let no_wait = verb.waits && self.flag("no_wait")?;
        let argument = match verb.takes {
            Takes::Nothing(command) => Argument::Nothing(command),
            Takes::Instances => Argument::Instances(self.number("instances")?),
            Takes::Signal => Argument::Signal(self.text("signal")?),
        };
        Ok(Request::Operate {
            verb,
            argument,
            worker,
            no_wait,
        })
    }

    fn none_left(&self) -> Result<(), Error> {
        match self.0.keys().next() {
            Some(name) => Err(invalid(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(method: &str, parameters: Value, expects: Expects) -> Call {
        let Value::Object(parameters) = parameters else {
            panic!("parameters are an object");
        };
        Call {
            method: method.to_owned(),
            parameters,
            expects,
        }
    }

    fn ask(method: &str, parameters: Value, expects: Expects) -> Result<Request, Error> {
        Request::of(call(method, parameters, expects), Access::Act)
    }

    #[test]
    fn a_reader_may_query_and_change_nothing() {
        let read = |method: &String| {
            let parameters = match method.rsplit('.').next() {
                Some("GetInterfaceDescription") => json!({"interface": INTERFACE}),
                Some("Start" | "Stop" | "Restart" | "Reset") => json!({"worker": "app"}),
                Some("Scale") => json!({"worker": "app", "instances": 1}),
                Some("Signal") => json!({"worker": "app", "signal": "HUP"}),
                Some("GiveListener") => json!({"listener": "web"}),
                Some("Explain") => json!({"listener": "web"}),
                Some("TakeListener") => json!({"listeners": ["web"]}),
                _ => json!({}),
            };
            let call = call(method, parameters, Expects::Several);
            match Request::of(call, Access::Look) {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error, Error::PermissionDenied, "{method}");
                    false
                }
            }
        };
        let may: Vec<String> = methods().filter(read).collect();
        let names = may.iter().filter_map(|name| name.rsplit('.').next());
        let wanted = [
            "GetInfo",
            "GetInterfaceDescription",
            "Status",
            "Watch",
            "Logs",
            "Explain",
            "Metrics",
            "TakeListener",
        ];
        assert_eq!(names.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn parameters_are_typed_and_null_is_nothing() {
        let scale = |parameters| ask("io.listend.Manager.Scale", parameters, Expects::One);
        let wanted = Request::Operate {
            verb: verb::named("scale").unwrap(),
            argument: Argument::Instances(Some(4)),
            worker: "app".to_owned(),
            no_wait: false,
        };
        assert_eq!(
            scale(json!({"worker": "app", "instances": 4})),
            Ok(wanted.clone())
        );
        assert_eq!(
            scale(json!({"no_wait": null, "instances": 4, "worker": "app"})),
            Ok(wanted)
        );
        let follows = Request::Operate {
            verb: verb::named("scale").unwrap(),
            argument: Argument::Instances(None),
            worker: "app".to_owned(),
            no_wait: false,
        };
        assert_eq!(
            scale(json!({"worker": "app", "instances": null})),
            Ok(follows)
        );
        for (parameters, wrong) in [
            (json!({"instances": 4}), "worker"),
            (json!({"worker": null, "instances": 4}), "worker"),
            (json!({"worker": "app", "instances": -1}), "instances"),
            (json!({"worker": "app", "instances": 1.5}), "instances"),
            (json!({"worker": "app", "instances": "4"}), "instances"),
            (
                json!({"worker": "app", "instances": 1u64 << 32}),
                "instances",
            ),
            (
                json!({"worker": "app", "instances": 4, "no_wait": 1}),
                "no_wait",
            ),
            (json!({"worker": "app", "instances": 4, "x": null}), "x"),
        ] {
            assert_eq!(
                scale(parameters.clone()),
                Err(invalid(wrong)),
                "{parameters}"
            );
        }
    }

    #[test]
    fn listeners_to_take_are_named_once_each() {
        let take = |parameters| ask("io.listend.Manager.TakeListener", parameters, Expects::One);
        let names = vec!["web".to_owned(), "admin".to_owned()];
        assert_eq!(
            take(json!({"listeners": ["web", "admin"]})),
            Ok(Request::TakeListener { names })
        );
        for wrong in [
            json!({}),
            json!({"listeners": []}),
            json!({"listeners": "web"}),
            json!({"listeners": ["web", 1]}),
            json!({"listeners": ["web", "web"]}),
        ] {
            assert_eq!(take(wrong.clone()), Err(invalid("listeners")), "{wrong}");
        }
    }

    #[test]
    fn endless_answers_need_more() {
        for method in ["io.listend.Manager.Watch", "io.listend.Manager.Logs"] {
            assert!(ask(method, json!({}), Expects::Several).is_ok());
            for expects in [Expects::One, Expects::Nothing] {
                assert_eq!(ask(method, json!({}), expects), Err(Error::ExpectedMore));
            }
        }
    }

    #[test]
    fn unknown_names_are_told_apart() {
        let error = |method: &str| ask(method, json!({}), Expects::One).map(|_| ());
        let method = |name: &str| Error::MethodNotFound {
            method: name.to_owned(),
        };
        let interface = Error::InterfaceNotFound {
            interface: "io.example".to_owned(),
        };
        assert_eq!(error("io.example.Status"), Err(interface));
        for name in [
            "io.listend.Manager.Fly",
            "Status",
            "",
            "io.listend.Manager.status",
        ] {
            assert_eq!(error(name), Err(method(name)));
        }
    }

    #[test]
    fn a_stranger_learns_nothing() {
        for method in ["org.varlink.service.GetInfo", "io.listend.Manager.Fly"] {
            let call = Call {
                method: method.to_owned(),
                parameters: Map::new(),
                expects: Expects::One,
            };
            let got = Request::of(call, Access::Nothing);
            assert_eq!(got, Err(Error::PermissionDenied));
        }
    }
}
