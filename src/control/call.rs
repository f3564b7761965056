//! Calls, and the replies to them (varlink.org, "Call" and "Reply").

use crate::report::nearest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt;

/// A method call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method with its interface: `io.listend.Manager.Status`.
    pub method: String,
    /// Empty where there are none.
    pub parameters: Map<String, Value>,
    /// The number of replies that the client takes.
    pub expects: Expects,
}

/// The number of replies that a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// One reply.
    One,
    /// Any number that say that they continue, and one that does not (`more`).
    Several,
    /// No reply, not even an error (`oneway`).
    Nothing,
}

impl Expects {
    /// The frame to send for this reply, if any: who did not ask for several replies gets only the
    /// last.
    pub fn frame(self, reply: &Reply) -> Option<&[u8]> {
        let wanted = match self {
            Expects::One => reply.is_last,
            Expects::Several => true,
            Expects::Nothing => false,
        };
        wanted.then_some(reply.frame.as_slice())
    }
}

/// The frame is no call. There is no reply to what was not asked: close the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// No JSON, no object, nested too deeply, or members are missing, twice there or of the wrong
    /// type. Which, in the words of the JSON library.
    Malformed(String),
    /// A member that varlink does not know and that is no extension of a vendor.
    UnknownMember(String),
    /// More than one of `more`, `oneway` and `upgrade`.
    Contradiction,
    /// `upgrade` makes a connection something else than varlink; no method here does that.
    Upgrade,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reject::Malformed(words) => write!(
                f,
                "the client sent an invalid varlink call: \
                                                   {words}"
            ),
            Reject::UnknownMember(name) => {
                write!(f, "the client sent a call with an unknown member {name:?}")
            }
            Reject::Contradiction => f.write_str(
                "the client sent a call with more than one of `more`, `oneway` and `upgrade`",
            ),
            Reject::Upgrade => {
                f.write_str("the client asked for `upgrade`, which no method of listend supports")
            }
        }
    }
}

/// The members of a call. A derived reader also takes an array for a struct, but not for one with
/// a flattened rest.
#[derive(Deserialize)]
struct Members {
    method: String,
    parameters: Option<Map<String, Value>>,
    oneway: Option<bool>,
    more: Option<bool>,
    upgrade: Option<bool>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Call {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// [`Reject`]: close the connection.
    pub fn read(frame: &[u8]) -> Result<Call, Reject> {
        let members: Members =
            serde_json::from_slice(frame).map_err(|error| Reject::Malformed(error.to_string()))?;
        // Members of a vendor have a name with a dot, and may be ignored.
        let unknown = members.others.into_iter().map(|(name, _)| name);
        if let Some(name) = unknown.into_iter().find(|name| !name.contains('.')) {
            return Err(Reject::UnknownMember(name));
        }
        let is_set = |flag: Option<bool>| flag == Some(true);
        let expects = match (
            is_set(members.more),
            is_set(members.oneway),
            is_set(members.upgrade),
        ) {
            (false, false, false) => Expects::One,
            (true, false, false) => Expects::Several,
            (false, true, false) => Expects::Nothing,
            (false, false, true) => return Err(Reject::Upgrade),
            (true, true, _) | (true, _, true) | (_, true, true) => {
                return Err(Reject::Contradiction);
            }
        };
        Ok(Call {
            method: members.method,
            parameters: members.parameters.unwrap_or_default(),
            expects,
        })
    }
}

/// What a reply that is no error starts with; behind its parameters it is closed.
pub const BEFORE_PARAMETERS: &[u8] = br#"{"parameters":"#;

/// A reply, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// JSON, without the NUL at the end.
    frame: Vec<u8>,
    is_last: bool,
}

#[derive(Serialize)]
struct Success<'a, T> {
    parameters: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    continues: Option<bool>,
}

impl Reply {
    /// The only reply, or the last one. The parameters have to become an object.
    pub fn last(parameters: &impl Serialize) -> Reply {
        Reply::success(parameters, true)
    }

    /// A reply that others will follow. The parameters have to become an object.
    pub fn continues(parameters: &impl Serialize) -> Reply {
        Reply::success(parameters, false)
    }

    /// The last reply, whose parameters were put together as JSON by the caller.
    pub fn rendered(parameters: &[u8]) -> Reply {
        Reply::rest([BEFORE_PARAMETERS, parameters, b"}"].concat())
    }

    /// The end of the last reply, whose start was sent in parts.
    pub fn rest(frame: Vec<u8>) -> Reply {
        Reply {
            frame,
            is_last: true,
        }
    }

    /// The last reply of a method that has nothing to tell.
    pub fn done() -> Reply {
        Reply::last(&Map::new())
    }

    /// An error ends the call, whatever was replied before.
    pub fn error(error: &Error) -> Reply {
        let members = json!({ "error": error.name(), "parameters": error.parameters() });
        Reply {
            frame: members.to_string().into_bytes(),
            is_last: true,
        }
    }

    fn success(parameters: &impl Serialize, is_last: bool) -> Reply {
        let members = Success {
            parameters,
            continues: (!is_last).then_some(true),
        };
        match serde_json::to_vec(&members) {
            Ok(frame) => Reply { frame, is_last },
            // Only maps whose keys are no strings have no JSON. There are none here, and a client
            // that waits must be told something in any case.
            Err(error) => Reply::error(&Error::Failed {
                reason: format!("the reply cannot be written as JSON: {error}"),
            }),
        }
    }

    /// Whether the call is answered with it.
    pub fn is_last(&self) -> bool {
        self.is_last
    }
}

/// Why a call was not carried out. Those up to `ExpectedMore` are every varlink service's, the
/// others our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No such interface here.
    InterfaceNotFound {
        /// The name that was asked for.
        interface: String,
    },
    /// No such method in the interface.
    MethodNotFound {
        /// The method with its interface.
        method: String,
    },
    /// The method is described, but this listend cannot do it.
    MethodNotImplemented {
        /// The method with its interface.
        method: String,
    },
    /// A parameter is unknown, missing, of the wrong type, or out of range.
    InvalidParameter {
        /// The name of the parameter.
        parameter: String,
    },
    /// The client may not do this; see [`super::Access`].
    PermissionDenied,
    /// The method has to be called with `more`.
    ExpectedMore,
    /// No worker or listener has this name.
    NoSuchThing {
        /// The name that was asked for.
        name: String,
        /// The one that was meant, perhaps.
        suggestion: Option<String>,
    },
    /// The request cannot be carried out now; nothing was changed.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// The configuration was not taken; nothing was changed.
    NotReloaded {
        /// The reason.
        reason: String,
        /// Every error as text.
        rendered: String,
        /// Every error as `Check` has it.
        errors: Vec<Value>,
    },
    /// The request was tried and did not succeed.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

impl Error {
    /// No worker or listener is called so; one of these was perhaps meant.
    pub fn no_such_thing<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
        Error::NoSuchThing {
            name: name.to_owned(),
            suggestion: nearest(name, known).map(str::to_owned),
        }
    }

    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Error::InterfaceNotFound { .. } => "org.varlink.service.InterfaceNotFound",
            Error::MethodNotFound { .. } => "org.varlink.service.MethodNotFound",
            Error::MethodNotImplemented { .. } => "org.varlink.service.MethodNotImplemented",
            Error::InvalidParameter { .. } => "org.varlink.service.InvalidParameter",
            Error::PermissionDenied => "org.varlink.service.PermissionDenied",
            Error::ExpectedMore => "org.varlink.service.ExpectedMore",
            Error::NoSuchThing { .. } => "io.listend.Manager.NoSuchThing",
            Error::Refused { .. } => "io.listend.Manager.Refused",
            Error::NotReloaded { .. } => "io.listend.Manager.NotReloaded",
            Error::Failed { .. } => "io.listend.Manager.Failed",
        }
    }

    /// The parameters of the error.
    pub fn parameters(&self) -> Value {
        match self {
            Error::InterfaceNotFound { interface } => json!({ "interface": interface }),
            Error::MethodNotFound { method } | Error::MethodNotImplemented { method } => {
                json!({ "method": method })
            }
            Error::InvalidParameter { parameter } => json!({ "parameter": parameter }),
            Error::PermissionDenied | Error::ExpectedMore => json!({}),
            Error::NoSuchThing { name, suggestion } => {
                json!({ "name": name, "suggestion": suggestion })
            }
            Error::NotReloaded {
                reason,
                rendered,
                errors,
            } => json!({ "reason": reason, "rendered": rendered, "errors": errors }),
            Error::Refused { reason } | Error::Failed { reason } => json!({ "reason": reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Call, Reject> {
        Call::read(text.as_bytes())
    }

    #[test]
    fn a_call_needs_only_a_method() {
        let bare = Call {
            method: "a.B".to_owned(),
            parameters: Map::new(),
            expects: Expects::One,
        };
        for text in [
            r#"{"method":"a.B"}"#,
            r#"{"method":"a.B","parameters":{}}"#,
            r#" {"parameters":null,"more":null,"oneway":false,"upgrade":false,"method":"a.B"} "#,
            r#"{"method":"a.B","org.example":{"x":1}}"#,
        ] {
            assert_eq!(read(text), Ok(bare.clone()), "{text}");
        }
        let more = read(r#"{"method":"a.B","more":true,"parameters":{"c":1}}"#).unwrap();
        assert_eq!(more.expects, Expects::Several);
        assert_eq!(more.parameters["c"], 1);
        let oneway = read(r#"{"method":"a.B","oneway":true}"#).unwrap();
        assert_eq!(oneway.expects, Expects::Nothing);
    }

    #[test]
    fn what_is_no_call_is_rejected() {
        let deep = format!(
            r#"{{"method":"a.B","parameters":{{"x":{}{}}}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        for text in [
            "",
            "x",
            "null",
            "[]",
            r#"["a.B",null,null,null,null]"#,
            r#"{"method":"a.B"} x"#,
            r#"{"method":"a.B""#,
            r#"{}"#,
            r#"{"method":1}"#,
            r#"{"method":null}"#,
            r#"{"method":"a.B","method":"a.B"}"#,
            r#"{"method":"a.B","parameters":[]}"#,
            r#"{"method":"a.B","parameters":"x"}"#,
            r#"{"method":"a.B","more":1}"#,
            r#"{"method":"a.B","oneway":"true"}"#,
            &deep,
        ] {
            let got = read(text);
            let start: String = text.chars().take(60).collect();
            assert!(matches!(got, Err(Reject::Malformed(_))), "{start}: {got:?}");
        }
        assert!(matches!(
            Call::read(b"{\"method\":\"a.\xff\"}"),
            Err(Reject::Malformed(_))
        ));
        assert_eq!(
            read(r#"{"method":"a.B","x":1}"#),
            Err(Reject::UnknownMember("x".to_owned()))
        );
        assert_eq!(
            read(r#"{"method":"a.B","upgrade":true}"#),
            Err(Reject::Upgrade)
        );
        for (one, two) in [
            ("more", "oneway"),
            ("oneway", "upgrade"),
            ("upgrade", "more"),
        ] {
            let text = format!(r#"{{"method":"a.B","{one}":true,"{two}":true}}"#);
            assert_eq!(read(&text), Err(Reject::Contradiction), "{text}");
        }
    }

    #[test]
    fn everybody_gets_the_replies_that_were_asked_for() {
        let step = Reply::continues(&json!({ "done": 1 }));
        let last = Reply::last(&json!({ "done": 2 }));
        let error = Reply::error(&Error::ExpectedMore);
        let sent = |expects: Expects| {
            let replies = [&step, &last, &error].map(|reply| expects.frame(reply));
            replies.map(|frame| frame.map(|frame| String::from_utf8(frame.to_vec()).unwrap()))
        };
        let step = r#"{"parameters":{"done":1},"continues":true}"#.to_owned();
        let last = r#"{"parameters":{"done":2}}"#.to_owned();
        let error = r#"{"error":"org.varlink.service.ExpectedMore","parameters":{}}"#.to_owned();
        let (last, error) = (Some(last), Some(error));
        assert_eq!(sent(Expects::One), [None, last.clone(), error.clone()]);
        assert_eq!(sent(Expects::Several), [Some(step), last, error]);
        assert_eq!(sent(Expects::Nothing), [None, None, None]);
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_right_one() {
        let error = Error::no_such_thing("wbe", ["app", "web"]);
        let wanted = json!({ "name": "wbe", "suggestion": "web" });
        assert_eq!(error.parameters(), wanted);
        let error = Error::no_such_thing("zebra", ["app", "web"]);
        assert_eq!(error.parameters()["suggestion"], Value::Null);
    }

    #[test]
    fn a_reply_holds_no_nul_of_its_own() {
        let reply = Reply::last(&json!({ "text": "a\0b" }));
        let frame = Expects::One.frame(&reply).unwrap();
        assert_eq!(frame, br#"{"parameters":{"text":"a\u0000b"}}"#);
        assert_eq!(
            Expects::One.frame(&Reply::done()).unwrap(),
            br#"{"parameters":{}}"#
        );
    }
}
