//! Reads the entries of `listeners:` into [`Listener`]s.

use super::address;
use super::address_parsed::V6;
use super::decode::{Entry, Fields, account, default, list, silence, text, wrong_type};
use super::draft::{DraftListener, Field, ListenerKeys};
use super::fitting;
use super::flows;
use super::keys;
use super::model::{Address, Endpoint, Listener, Presence};
use super::scalar;
use super::setting;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use super::yaml::{Content, Node};
use crate::report::{Kind, Place, Report, shortened};
use std::sync::LazyLock;

/// A listener with everything at its default.
pub(super) fn plain(name: &str, place: Place) -> Listener {
    Listener {
        name: Located {
            value: name.to_owned(),
            place,
        },
        ..DEFAULTS.clone()
    }
}

/// Made once: its values are read from the table of keys, and there may be thousands of listeners.
static DEFAULTS: LazyLock<Listener> = LazyLock::new(|| {
    let flag = |key| default(keys::LISTENER, key, scalar::boolean);
    let mode = |key| default(keys::LISTENER, key, scalar::mode);
    Listener {
        name: Located {
            value: String::new(),
            place: Place::default(),
        },
        addresses: Vec::new(),
        backlog: None,
        ipv6_only: flag("ipv6_only"),
        owner: None,
        group: None,
        mode: mode("mode"),
        directory_owner: None,
        directory_group: None,
        symlinks: Vec::new(),
        remove_on_stop: flag("remove_on_stop"),
        options: Vec::new(),
        multicast: Vec::new(),
        network_namespace: None,
        grant: Vec::new(),
        presence: Presence::Required,
        flows: None,
        directory_mode: mode("directory_mode"),
        silence: Vec::new(),
    }
});

/// Reads one entry of `listeners:`.
pub(super) fn decode(entry: &Entry, report: &mut Report) -> DraftListener {
    let mut out = Diagnostics {
        report,
        listener: Some(entry.name),
        worker: None,
    };
    out.check(entry.place, scalar::name(entry.name));
    let name = Located {
        value: entry.name.to_owned(),
        place: entry.place,
    };
    decode_value(name, entry.value, report)
}

/// Reads what stands behind the name.
pub(super) fn decode_value(
    name: Located<String>,
    value: &Node,
    report: &mut Report,
) -> DraftListener {
    let mut out = Diagnostics {
        report,
        listener: Some(&name.value),
        worker: None,
    };
    let mut draft = DraftListener {
        listener: plain(&name.value, name.place),
        broken: false,
        duplicate: false,
    };
    match &value.content {
        Content::Map(_) => long_form(value, &mut draft, &mut out),
        Content::Null { .. } => {
            let value_error = ValueError::new(
                Kind::MissingKey,
                format!("listener `{}` has no address", name.value),
            );
            let value_error =
                value_error.hint(format!("write it like `{}: 127.0.0.1:8080`", name.value));
            out.add(value_error.at(value.place));
            draft.broken = true;
        }
        _ => addresses(value, V6::Only, &mut draft, &mut out),
    }
    draft
}

fn long_form(node: &Node, draft: &mut DraftListener, out: &mut Diagnostics) {
    let what = format!("listener `{}`", draft.listener.name.value);
    let Some(mut fields) = Fields::open(node, keys::LISTENER, &what, &[], out) else {
        draft.broken = true;
        return;
    };
    let v6_only = fields.read("ipv6_only", out, scalar::boolean);
    if let Field::Set(only) = &v6_only {
        draft.listener.ipv6_only = only.value;
    }
    let v6 = if draft.listener.ipv6_only {
        V6::Only
    } else {
        V6::AndV4
    };
    match fields.take("address") {
        Some(Node {
            content: Content::Null { .. },
            ..
        }) => draft.broken = true,
        Some(node) => addresses(node, v6, draft, out),
        None => {
            let name = &draft.listener.name;
            let value_error = ValueError::new(
                Kind::MissingKey,
                format!("listener `{}` has no `address`", name.value),
            );
            out.add(
                value_error
                    .hint("add `address: 127.0.0.1:8080`")
                    .at(name.place),
            );
            draft.broken = true;
        }
    }
    let written = ListenerKeys {
        v6_only,
        ..settings(&mut fields, &mut draft.listener, out)
    };
    fields.finish();
    if !draft.broken {
        fitting::check(&draft.listener, &written, out);
    }
}

/// Every key but the addresses.
fn settings(fields: &mut Fields, listener: &mut Listener, out: &mut Diagnostics) -> ListenerKeys {
    let backlog = fields.read("backlog", out, |key, text| {
        scalar::integer(key, text, 1, i64::from(i32::MAX))
    });
    listener.backlog = backlog.into_set();
    listener.owner = fields.read("owner", out, account).into_boxed();
    listener.group = fields.read("group", out, account).into_boxed();
    let mut of_files = Vec::new();
    of_files.extend(fields.set("mode", &mut listener.mode, out, scalar::mode));
    let directory_mode = &mut listener.directory_mode;
    of_files.extend(fields.set("directory_mode", directory_mode, out, scalar::mode));
    setting::directory(fields, listener, out);
    setting::symlinks(fields, listener, out);
    let remove = &mut listener.remove_on_stop;
    of_files.extend(fields.set("remove_on_stop", remove, out, scalar::boolean));
    let writable = fields.read("writable", out, scalar::boolean);
    if writable.as_set().is_some_and(|writable| writable.value) {
        make_writable(listener);
    }
    setting::multicast(fields, listener, out);
    setting::network_namespace(fields, listener, out);
    setting::grant(fields, listener, out);
    let wait_for_address = setting::presence(fields, listener, out);
    flows::decode(fields, listener, out);
    listener.silence = silence(fields.take("silence"), out);
    setting::options(fields, listener, out);
    ListenerKeys {
        v6_only: Field::Absent,
        of_files,
        writable,
        wait_for_address,
    }
}

fn make_writable(listener: &mut Listener) {
    let addresses = listener.addresses.iter_mut();
    for endpoint in addresses.flat_map(|address| &mut address.value.endpoints) {
        if let Endpoint::Special { writable, .. } = endpoint {
            *writable = true;
        }
    }
}

/// Reads one address or a list of them.
fn addresses(node: &Node, v6: V6, draft: &mut DraftListener, out: &mut Diagnostics) {
    let items = list(node);
    if items.is_empty() {
        let value_error = ValueError::new(
            Kind::MissingKey,
            format!(
                "listener `{}` has an empty list of addresses",
                draft.listener.name.value
            ),
        );
        out.add(
            value_error
                .hint("write at least one, like `127.0.0.1:8080`")
                .at(node.place),
        );
        draft.broken = true;
    }
    for item in items {
        let endpoints = match &item.content {
            Content::Scalar(_) => text(item, "address", out)
                .and_then(|text| Some((text, checked(item.place, text, v6, out)?))),
            _ => {
                out.add(
                    wrong_type("`address`", "an address or a list of them", item).at(item.place),
                );
                None
            }
        };
        match endpoints {
            Some((text, endpoints)) => draft.listener.addresses.push(Located {
                value: Address {
                    text: text.to_owned(),
                    endpoints,
                },
                place: item.place,
            }),
            None => draft.broken = true,
        }
    }
}

/// Reads an address; a problem with it carries its text.
pub(super) fn checked(
    place: Place,
    text: &str,
    v6: V6,
    out: &mut Diagnostics,
) -> Option<Vec<Endpoint>> {
    match address::parse(text, v6) {
        Ok(endpoints) => Some(endpoints),
        Err(value_error) => {
            out.add(value_error.at(place).with_address(shortened(text)));
            None
        }
    }
}
