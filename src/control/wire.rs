//! Frames: JSON texts, each ended by a NUL byte (varlink.org, "Wire Protocol").
//!
//! JSON holds no NUL byte of its own, so the end of a frame is found without parsing it. Both sides
//! take linear time however the bytes come and go: no byte is looked at twice, and what was
//! consumed is cut off only when it is at least as much as what has to be moved for that.

use std::fmt;

/// No call of a client may be longer, in bytes and without its NUL. The longest call that means
/// anything is far shorter, and thousands of clients may each send one at once.
pub const MAX_FRAME: usize = 64 << 10;

/// So much may wait for a client that does not read, in bytes. Less than what the clients of
/// systemd buffer (16 MiB), and enough for the events of a busy minute.
pub const MAX_WAITING: usize = 4 << 20;

/// The client sent more than [`MAX_FRAME`] bytes without an end. Close the connection: where the
/// next frame would start is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTooLong;

impl fmt::Display for FrameTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client sent a call of more than {MAX_FRAME} bytes")
    }
}

/// The client does not read what it asked for. Close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread;

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = MAX_WAITING >> 20;
        write!(f, "the client does not read: {mib} MiB wait for it")
    }
}

/// Bytes of a client in, frames out.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Buffer,
    /// The bytes behind `start` that are known to hold no NUL.
    scanned: usize,
}

impl Inbox {
    /// Takes what was read from the socket.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.buffer.append(bytes);
    }

    /// The next whole frame without its NUL, which may be empty.
    ///
    /// # Errors
    ///
    /// [`FrameTooLong`], from then on and for good.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameTooLong> {
        let rest = self.buffer.rest();
        // `scanned` is never beyond the end: only this function sets it, and only `append` happens
        // between two calls.
        let fresh = &rest[self.scanned..];
        let Some(found) = fresh.iter().position(|byte| *byte == 0) else {
            self.scanned = rest.len();
            return match self.scanned > MAX_FRAME {
                true => Err(FrameTooLong),
                false => Ok(None),
            };
        };
        let length = self.scanned + found;
        if length > MAX_FRAME {
            return Err(FrameTooLong);
        }
        let frame = rest[..length].to_vec();
        self.buffer.consume(length + 1);
        self.scanned = 0;
        Ok(Some(frame))
    }

    /// The number of bytes held.
    pub fn held(&self) -> usize {
        self.buffer.rest().len()
    }

    /// Whether to read on from the socket. While a call is being answered its successors have to
    /// wait, here and then in the socket's buffer, so that a client that only asks costs no more
    /// than this and one more read.
    pub fn has_room(&self) -> bool {
        self.buffer.rest().len() <= MAX_FRAME
    }
}

/// Frames in, bytes for a client out.
#[derive(Debug, Default)]
pub struct Outbox {
    buffer: Buffer,
    /// The frame to which what is queued last belongs has not ended.
    is_in_frame: bool,
}

impl Outbox {
    /// Queues a frame, which has no NUL yet.
    ///
    /// An empty outbox takes a frame of any length, because the length of one answer is bounded by
    /// the size of the configuration. So take the next call of a client only when the answers to
    /// those before have gone.
    ///
    /// # Errors
    ///
    /// [`Unread`] if more than [`MAX_WAITING`] bytes would wait; the frame is not queued.
    pub fn push(&mut self, frame: &[u8]) -> Result<(), Unread> {
        let waiting = self.pending().len();
        if waiting > 0 && !self.is_in_frame && waiting + frame.len() + 1 > MAX_WAITING {
            return Err(Unread);
        }
        self.buffer.append(frame);
        self.buffer.append(&[0]);
        self.is_in_frame = false;
        Ok(())
    }

    /// Queues a part of a frame, which [`Outbox::push`] ends. Begun in an empty outbox it may have any
    /// length, as a whole one may.
    pub fn push_part(&mut self, part: &[u8]) {
        self.buffer.append(part);
        self.is_in_frame = true;
    }

    /// The bytes to write to the socket next.
    pub fn pending(&self) -> &[u8] {
        self.buffer.rest()
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.pending().is_empty()
    }

    /// So many bytes of [`Outbox::pending`] were written.
    pub fn written(&mut self, count: usize) {
        self.buffer.consume(count);
    }
}

/// Bytes that go in at the end and out at the start.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// So many are consumed; never more than there are.
    consumed: usize,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    fn append(&mut self, bytes: &[u8]) {
        // Moving the rest costs no more than consuming the part before it has cost.
        if self.consumed > 0 && self.consumed >= self.rest().len() {
            self.bytes.drain(..self.consumed);
            self.consumed = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn consume(&mut self, count: usize) {
        self.consumed = (self.consumed + count).min(self.bytes.len());
        if self.consumed == self.bytes.len() {
            // Gives the memory back: a client may be idle for months.
            *self = Buffer::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let mut inbox = Inbox::default();
        inbox.receive(b"{\"a\"");
        assert_eq!(inbox.next_frame(), Ok(None));
        inbox.receive(b":1}\0\0{}");
        assert_eq!(inbox.next_frame(), Ok(Some(b"{\"a\":1}".to_vec())));
        assert_eq!(inbox.next_frame(), Ok(Some(Vec::new())));
        assert_eq!(inbox.next_frame(), Ok(None));
        inbox.receive(b"\0");
        assert_eq!(inbox.next_frame(), Ok(Some(b"{}".to_vec())));
        assert_eq!(inbox.next_frame(), Ok(None));
        assert_eq!(inbox.buffer.bytes.capacity(), 0, "the memory is given back");
    }

    #[test]
    fn a_frame_may_be_as_long_as_allowed_and_no_longer() {
        let longest = vec![b' '; MAX_FRAME];
        let mut inbox = Inbox::default();
        inbox.receive(&longest);
        assert_eq!(inbox.next_frame(), Ok(None));
        inbox.receive(b"\0");
        assert_eq!(inbox.next_frame(), Ok(Some(longest.clone())));
        inbox.receive(&longest);
        inbox.receive(b" ");
        assert_eq!(inbox.next_frame(), Err(FrameTooLong));
        inbox.receive(b"\0{}\0");
        assert_eq!(inbox.next_frame(), Err(FrameTooLong));
    }

    #[test]
    fn calls_in_advance_stop_the_reading() {
        let mut inbox = Inbox::default();
        let call = [vec![b' '; MAX_FRAME / 2], vec![0]].concat();
        inbox.receive(&call);
        assert!(inbox.has_room());
        inbox.receive(&call);
        assert!(!inbox.has_room());
        assert!(matches!(inbox.next_frame(), Ok(Some(_))));
        assert!(inbox.has_room());
    }

    #[test]
    fn what_has_gone_takes_no_memory_although_something_is_always_left() {
        let mut outbox = Outbox::default();
        outbox.push(b"x").expect("room");
        for _ in 0..10_000 {
            outbox.push(&[b'x'; 99]).expect("room");
            outbox.written(100);
            assert_eq!(outbox.pending().len(), 2);
        }
        let held = outbox.buffer.bytes.len();
        assert!(held <= 1000, "{held} bytes for two");
    }

    #[test]
    fn an_outbox_takes_one_frame_of_any_length_and_then_a_limited_number() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(&vec![b' '; 2 * MAX_WAITING]), Ok(()));
        assert_eq!(outbox.push(b"{}"), Err(Unread));
        outbox.written(2 * MAX_WAITING - 1);
        assert_eq!(outbox.pending(), b" \0");
        assert_eq!(outbox.push(b"{}"), Ok(()));
        assert_eq!(outbox.pending(), b" \0{}\0");
        outbox.written(2);
        assert_eq!(outbox.push(&vec![b' '; MAX_WAITING - 4]), Ok(()));
        assert_eq!(outbox.push(b""), Err(Unread));
        outbox.written(outbox.pending().len());
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_frame_in_parts_is_as_long_as_a_whole_one_may_be() {
        let mut outbox = Outbox::default();
        outbox.push_part(b"[");
        outbox.written(1);
        assert!(outbox.is_empty(), "what there is can be written at once");
        outbox.push_part(&vec![b' '; 2 * MAX_WAITING]);
        assert_eq!(outbox.push(b"]"), Ok(()));
        assert_eq!(outbox.push(b"{}"), Err(Unread), "the next one is another");
        outbox.written(2 * MAX_WAITING);
        assert_eq!(outbox.pending(), b"]\0");
    }
}
