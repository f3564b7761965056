//! A problem as a line of the log.

use crate::report::Problem;

/// A problem on one line: what, why, and what to do.
pub(crate) fn one_line(problem: &Problem) -> String {
    let mut line = problem.message.clone();
    for cause in &problem.causes {
        line.push_str("; ");
        line.push_str(cause);
    }
    if let Some(hint) = &problem.hint {
        line.push_str("; ");
        line.push_str(hint);
    }
    line
}
