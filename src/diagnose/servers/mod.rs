//! Whether servers take the listeners of their workers, by what their own configuration says.
//!
//! Configurations are read and never run. What cannot be read or understood is nothing to complain of.

mod file;
mod fpm;
mod nginx;
mod others;
mod server;
#[cfg(test)]
mod tests;

use crate::config::Template;
use crate::config::preset::Evidence;
use crate::host::{OnThisMachine, ServerFiles};
use crate::plan::Plan;
use crate::report::Problem;
use server::Server;

/// Advice about every worker with a preset. Does not look at `silence:`.
pub fn servers(plan: &Plan) -> Vec<Problem> {
    with_files(plan, &OnThisMachine, nix::unistd::geteuid().as_raw())
}

/// `uid` is the user of listend.
fn with_files(plan: &Plan, files: &dyn ServerFiles, uid: u32) -> Vec<Problem> {
    let mut advice = Vec::new();
    for (_, worker) in plan.workers() {
        let Some(preset) = &worker.preset else {
            continue;
        };
        let user = worker.launch.credentials.as_ref();
        let server = Server {
            is_root: user.and_then(|user| user.uid).unwrap_or(uid) == 0,
            files,
            plan,
            worker,
            preset: preset.value,
            place: preset.place,
            words: worker.command.iter().map(Template::to_string).collect(),
        };
        advice.extend(match server.preset.evidence {
            Evidence::None => Vec::new(),
            Evidence::Number(usage) => others::number(&server, usage),
            Evidence::Nginx => nginx::advise(&server),
            Evidence::Gunicorn => others::gunicorn(&server),
            Evidence::PhpFpm => fpm::advise(&server),
            Evidence::Lighttpd => others::lighttpd(&server),
            Evidence::Apache => others::apache(&server),
            Evidence::Caddy => others::caddy(&server),
            Evidence::Haproxy => others::haproxy(&server),
            Evidence::Puma => others::puma(&server),
        });
    }
    advice
}
