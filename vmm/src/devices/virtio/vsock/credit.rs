//! Credit of one stream (virtio 1.2, 5.10.6.3): how much each side may send, with counters that wrap at 2^32.

use std::num::Wrapping;

/// Receive buffer per connection, announced to the guest as `buf_alloc`; the most that is buffered for a slow client.
pub const RECEIVE_BUFFER_BYTES: u32 = 256 * 1024;
/// Freed space at which the guest gets a credit update: before it runs out of credit, but not with every packet.
const UPDATE_BYTES: u32 = RECEIVE_BUFFER_BYTES / 4;

/// What may still be sent to the guest.
#[derive(Debug, Default)]
pub struct SendCredit {
    sent: Wrapping<u32>,
    buf_alloc: u32,
    fwd_cnt: Wrapping<u32>,
}

impl SendCredit {
    /// Sets the credit from a packet of the guest.
    pub fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.buf_alloc = buf_alloc;
        self.fwd_cnt = Wrapping(fwd_cnt);
    }

    /// Bytes that fit into the guest's buffer. A guest that claims to have forwarded more than it received gets none.
    pub fn available(&self) -> u32 {
        self.buf_alloc.saturating_sub((self.sent - self.fwd_cnt).0)
    }

    /// `count` bytes were sent; at most [`SendCredit::available`].
    pub fn consume(&mut self, count: u32) {
        self.sent += count;
    }
}

/// What the guest may still send.
#[derive(Debug, Default)]
pub struct ReceiveCredit {
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    announced: Wrapping<u32>,
}

impl ReceiveCredit {
    /// Bytes received and not forwarded yet.
    pub fn held(&self) -> u32 {
        (self.received - self.forwarded).0
    }

    /// Accounts for `count` bytes that arrived; `false` and no change if the guest had no credit for them.
    pub fn accept(&mut self, count: u32) -> bool {
        let fits = count <= RECEIVE_BUFFER_BYTES - self.held();
        if fits {
            self.received += count;
        }
        fits
    }

    /// `count` of the held bytes were forwarded to the client.
    pub fn forward(&mut self, count: u32) {
        debug_assert!(count <= self.held(), "only held bytes can be forwarded");
        self.forwarded += count;
    }

    /// The `fwd_cnt` for the header of a packet that is being sent now.
    pub fn announce(&mut self) -> u32 {
        self.announced = self.forwarded;
        self.forwarded.0
    }

    /// Whether a credit update is due even if no other packet is sent.
    pub fn is_update_due(&self) -> bool {
        (self.forwarded - self.announced).0 >= UPDATE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_impossible_fwd_cnt_gives_no_credit() {
        let mut credit = SendCredit::default();
        credit.update(1000, 1);
        assert_eq!(credit.available(), 0);
        credit.update(u32::MAX, 0);
        assert_eq!(credit.available(), u32::MAX);
        credit.consume(10);
        credit.update(5, 0);
        assert_eq!(credit.available(), 0);
    }

    /// Values around every boundary of the arithmetic: zero, the buffer, its update threshold, half of the range and the wrap.
    fn boundaries() -> impl Iterator<Item = u32> + Clone {
        let middles = [0, UPDATE_BYTES, RECEIVE_BUFFER_BYTES, 2 * RECEIVE_BUFFER_BYTES, 1 << 31];
        middles
            .into_iter()
            .flat_map(|middle: u32| (-2i32..=2).map(move |d| middle.wrapping_add_signed(d)))
    }

    #[test]
    fn sending_never_exceeds_the_guest_s_buffer_wherever_the_counters_wrap() {
        for (sent, in_flight, alloc) in boundaries().flat_map(|s| boundaries().flat_map(move |f| boundaries().map(move |a| (s, f, a)))) {
            let mut credit = SendCredit {
                sent: Wrapping(sent),
                ..SendCredit::default()
            };
            // The guest has forwarded all but `in_flight` of what was sent.
            credit.update(alloc, sent.wrapping_sub(in_flight));
            let room = u64::from(alloc).saturating_sub(in_flight.into());
            assert_eq!(u64::from(credit.available()), room, "{sent} {in_flight} {alloc}");
            credit.consume(credit.available());
            assert_eq!(credit.available(), 0);
        }
    }

    #[test]
    fn receiving_accepts_exactly_what_fits_wherever_the_counters_wrap() {
        for (start, held, count) in boundaries().flat_map(|s| boundaries().flat_map(move |h| boundaries().map(move |c| (s, h, c)))) {
            let mut credit = ReceiveCredit {
                received: Wrapping(start),
                forwarded: Wrapping(start),
                announced: Wrapping(start),
            };
            assert_eq!(credit.accept(held), held <= RECEIVE_BUFFER_BYTES);
            let held = if held <= RECEIVE_BUFFER_BYTES { held } else { 0 };
            let fits = u64::from(held) + u64::from(count) <= RECEIVE_BUFFER_BYTES.into();
            assert_eq!(credit.accept(count), fits, "{start} {held} {count}");
            let held = if fits { held + count } else { held };
            assert_eq!(credit.held(), held);
            credit.forward(held);
            assert_eq!((credit.held(), credit.is_update_due()), (0, held >= UPDATE_BYTES));
            assert_eq!(credit.announce(), start.wrapping_add(held));
            assert!(!credit.is_update_due());
        }
    }

    proptest! {
        /// A model of both ends with unbounded counters, started near the wrap.
        #[test]
        fn never_more_in_flight_than_the_buffer_holds(
            start: u32, steps in proptest::collection::vec((0u8..4, 0u32..200_000), 1..200),
        ) {
            let mut sender = SendCredit { sent: Wrapping(start), buf_alloc: RECEIVE_BUFFER_BYTES, fwd_cnt: Wrapping(start) };
            let mut receiver = ReceiveCredit { received: Wrapping(start), forwarded: Wrapping(start), announced: Wrapping(start) };
            let mut held: u32 = 0;
            for (kind, amount) in steps {
                match kind {
                    0 => {
                        let count = amount.min(sender.available());
                        sender.consume(count);
                        prop_assert!(receiver.accept(count), "credit was given for these bytes");
                        held += count;
                    }
                    1 => {
                        let count = amount.min(held);
                        receiver.forward(count);
                        held -= count;
                    }
                    2 => sender.update(RECEIVE_BUFFER_BYTES, receiver.announce()),
                    _ => prop_assert!(!receiver.accept(RECEIVE_BUFFER_BYTES - held + 1)),
                }
                prop_assert_eq!(receiver.held(), held);
                prop_assert!(held <= RECEIVE_BUFFER_BYTES);
            }
            // A sender without credit never stalls: once all is forwarded, an update is due.
            receiver.forward(held);
            prop_assert!(sender.available() > 0 || receiver.is_update_due());
        }
    }
}
