//! What workers write: cut into lines, tagged, the last of them kept, and what the process is told that
//! writes files. Pure: bytes in, bytes out.

mod kept;
mod order;
mod split;
mod tag;

pub use kept::{Kept, Line, Since};
pub use order::{Answer, LONGEST_ANSWER, LONGEST_ORDER, LONGEST_TEXT, Order};
pub use split::{Ends, LONGEST, Piece, Splitter};
pub use tag::{Style, Tagger, visible};
