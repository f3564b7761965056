//! Frames of the control socket, and the calls in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::control::{Access, Call, Inbox, MAX_FRAME, Request};

fuzz_target!(|bytes: &[u8]| {
    let mut inbox = Inbox::default();
    // How the stream is cut comes from its first byte.
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    for chunk in bytes.chunks(usize::from(*cut) + 1) {
        inbox.receive(chunk);
        loop {
            match inbox.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= MAX_FRAME && !frame.contains(&0));
                    if let Ok(call) = Call::read(&frame)
                        && let Err(error) = Request::of(call, Access::Look)
                    {
                        assert!(error.name().contains('.'));
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
