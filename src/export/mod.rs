//! A configuration as units of systemd: a .socket for each listener, a .service for each worker.
//!
//! The reverse of [`crate::import`]. What systemd has no directive for becomes a comment with the reason, at
//! the unit that lacks it. Pure: the caller has read the configuration, and writes the files.

mod names;
mod sandbox;
mod service;
mod socket;
mod unit;

pub use unit::Unit;

use crate::config::{Activation, Config, Worker};
use names::{accepts, listeners_of, template};

/// The units of a configuration, those of listeners first.
pub fn systemd(config: &Config) -> Vec<Unit> {
    let mut config = config.clone();
    for worker in &mut config.workers {
        // What reads the datagrams itself is started by them.
        let listeners = listeners_of(worker, &config.listeners);
        if accepts(worker) && !listeners.iter().any(|one| names::has_clients(one)) {
            worker.activation.value = Activation::OnDemand;
        }
    }
    let config = &config;
    let mut units = Vec::new();
    for listener in &config.listeners {
        let name = &listener.name.value;
        let takers = takers(config, name);
        match takers.as_slice() {
            [first, others @ ..] => {
                let mut unit = socket::unit(listener, first);
                for other in others {
                    unit.remark(&format!(
                        "`{}` takes it as well; clients start `{}` alone.",
                        other.name.value, first.name.value
                    ));
                }
                units.push(unit);
            }
            [] => units.push(socket::held(listener)),
        }
    }
    for worker in &config.workers {
        if !accepts(worker) {
            let name = worker.name.value.clone();
            units.push(service::unit(worker, &config.listeners, name));
            continue;
        }
        for listener in &worker.listeners {
            let name = format!("{}@", template(worker, &listener.value));
            units.push(service::unit(worker, &config.listeners, name));
        }
    }
    if config.web.is_some()
        && let Some(first) = units.first_mut()
    {
        first.lacks(
            "web, metrics",
            "systemd has no page and no metrics of its units",
        );
    }
    units
}

fn takers<'a>(config: &'a Config, listener: &str) -> Vec<&'a Worker> {
    let takes = |worker: &&Worker| worker.listeners.iter().any(|one| one.value == listener);
    config.workers.iter().filter(takes).collect()
}
