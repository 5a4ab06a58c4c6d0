//! What is said when the disk does not give a page that is being read.
//!
//! The kernel tells the thread by SIGBUS, of which the process ends: a value that cannot be read
//! must not be answered. The handler only writes which segment it was, and where; it allocates
//! nothing, takes no lock and calls nothing but `write` and `raise`.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Mappings that can be told apart: segments of 64 MiB, so 256 GiB of log.
const SLOTS: usize = 4096;

static MAPPED: [Slot; SLOTS] = [const { Slot::free() }; SLOTS];

struct Slot {
    /// The mapping's address; 0 for a free slot.
    start: AtomicUsize,
    len: AtomicUsize,
    number: AtomicU32,
}

impl Slot {
    const fn free() -> Self {
        Self {
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            number: AtomicU32::new(0),
        }
    }
}

/// A mapping that the handler knows, until this is dropped.
#[derive(Debug)]
pub(super) struct Watched(usize);

/// Makes a mapping known; `None` if too many are.
pub(super) fn watch(start: usize, len: usize, number: u32) -> Option<Watched> {
    let free = MAPPED.iter().position(|slot| {
        let claimed = slot
            .start
            .compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
        claimed.is_ok()
    })?;
    MAPPED[free].number.store(number, Ordering::Relaxed);
    MAPPED[free].len.store(len, Ordering::Release);
    Some(Watched(free))
}

impl Drop for Watched {
    fn drop(&mut self) {
        MAPPED[self.0].len.store(0, Ordering::Relaxed);
        MAPPED[self.0].start.store(0, Ordering::Release);
    }
}

/// Has the handler called from now on, in the whole process.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = tell;
        #[allow(unsafe_code)]
        // SAFETY: All zeroes are a `sigaction` without flags and with an empty mask; the handler
        // has the signature that SA_SIGINFO asks for, and is safe to run at any point (above).
        let refused = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) != 0
        };
        if refused {
            tracing::warn!("a page that cannot be read will end this process without a word");
        }
    });
}

extern "C" fn tell(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    #[allow(unsafe_code)]
    // SAFETY: The kernel hands a handler with SA_SIGINFO a whole `siginfo_t`; of SIGBUS it has an
    // address.
    let (address, code) = unsafe { ((*info).si_addr().addr(), (*info).si_code) };
    let line = message(address);
    #[allow(unsafe_code)]
    // SAFETY: The line's bytes are there. By SA_RESETHAND the signal's action is the default one
    // again: either the read is tried again by returning, and ends the process, or the signal
    // came from a process (a code of 0 or less) and is sent once more.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len);
        if code <= 0 {
            libc::raise(libc::SIGBUS);
        }
    }
}

fn message(address: usize) -> Line {
    let mut line = Line {
        bytes: [0; 160],
        len: 0,
    };
    let hit = MAPPED.iter().find_map(|slot| {
        let len = slot.len.load(Ordering::Acquire);
        let offset = address.wrapping_sub(slot.start.load(Ordering::Relaxed));
        (offset < len).then(|| (slot.number.load(Ordering::Relaxed), offset))
    });
    line.text("quorate: SIGBUS: the disk does not give what is read");
    if let Some((number, offset)) = hit {
        line.text(" at offset ");
        line.number(offset);
        line.text(" of segment ");
        line.number(number as usize);
    }
    line.text("; this member must stop\n");
    line
}

/// A line of text on the stack.
struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl Line {
    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            if let Some(room) = self.bytes.get_mut(self.len) {
                *room = byte;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, number: usize) {
        if number >= 10 {
            self.number(number / 10);
        }
        let digit = usize::from(b'0') + number % 10;
        self.text(char::from(digit as u8).encode_utf8(&mut [0; 4]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(address: usize) -> String {
        let line = message(address);
        String::from_utf8(line.bytes[..line.len].to_vec()).expect("text")
    }

    #[test]
    fn an_address_is_named_as_long_as_it_is_watched() {
        let known = " at offset 4095 of segment 4294967295; this member must stop\n";
        let watched = watch(1 << 40, 4096, u32::MAX).expect("a free slot");
        assert!(said((1 << 40) + 4095).ends_with(known));
        assert!(!said((1 << 40) + 4096).contains("segment"));
        assert!(!said((1 << 40) - 1).contains("segment"));
        drop(watched);
        assert!(!said((1 << 40) + 4095).contains("segment"));
    }
}
