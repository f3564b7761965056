//! What workers write: cut into lines, tagged, and the last of them kept. Pure: bytes in, bytes out.

mod kept;
mod split;
mod tag;

pub use kept::{Kept, Line, Since};
pub use split::{Ends, LONGEST, Piece, Splitter};
pub use tag::{Style, Tagger, visible};
