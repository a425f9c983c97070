//! Attacks by size, by slowness and by the form of HTTP.

use super::shop::{PRICE, Shop};
use super::wire::{Answer, Ask, Reply};

const MEGABYTE: usize = 1_024 * 1_024;

/// The answer to whoever did not pay is `flood`; a card is taken and nothing is given.
fn before(shop: &mut Shop, ask: &Ask, flood: impl FnOnce(&Shop) -> Reply) -> Reply {
    let taken = shop.take(ask, super::shop::Repeats::Join).paid();
    if taken { Reply::nothing() } else { flood(shop) }
}

pub(super) fn huge_body(shop: &mut Shop, ask: &Ask) -> Reply {
    before(shop, ask, |_| Answer::new(402).body(vec![b'{'; 10 * MEGABYTE]).into())
}

pub(super) fn endless_body(shop: &mut Shop, ask: &Ask) -> Reply {
    let start = "HTTP/1.1 402 Answer\r\n\r\n{\"stripe402Version\":1,\"x\":\"";
    before(shop, ask, |_| Reply::endless(start, &[b'x'; 16 * 1_024], 10))
}

pub(super) fn slow_body(shop: &mut Shop, ask: &Ask) -> Reply {
    let start = "HTTP/1.1 402 Answer\r\ncontent-length: 100000\r\n\r\n{";
    before(shop, ask, |_| Reply::endless(start, b" ", 200))
}

pub(super) fn cut_body(shop: &mut Shop, ask: &Ask) -> Reply {
    before(shop, ask, |shop| {
        let mut whole = shop.ask(&[shop.offer()]).without("payment-required").bytes();
        whole.truncate(whole.len() - 10);
        Reply::raw(whole)
    })
}

pub(super) fn slow_head(shop: &mut Shop, ask: &Ask) -> Reply {
    before(shop, ask, |_| Reply::endless("HTTP/1.1 402 Answer\r\nx: ", b"x", 200))
}

pub(super) fn endless_head(shop: &mut Shop, ask: &Ask) -> Reply {
    let start = "HTTP/1.1 402 Answer\r\nx: ";
    before(shop, ask, |_| Reply::endless(start, &[b'x'; 16 * 1_024], 10))
}

pub(super) fn large_header(shop: &mut Shop, ask: &Ask) -> Reply {
    before(shop, ask, |shop| {
        let offers = vec![shop.offer(); 2_000];
        let message = shop.message(&offers, None);
        Answer::new(402).message("payment-required", &message).into()
    })
}

pub(super) fn many_headers(shop: &mut Shop, ask: &Ask) -> Reply {
    before(shop, ask, |shop| {
        let answer = shop.ask(&[shop.offer()]);
        (0..5_000).fold(answer, |answer, _| answer.with("x-header", "x")).into()
    })
}

pub(super) fn silence(shop: &mut Shop, ask: &Ask) -> Reply {
    before(shop, ask, |_| Reply::silence())
}

pub(super) fn silence_when_paid(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| Reply::silence())
}

pub(super) fn slow_head_when_paid(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| Reply::endless("HTTP/1.1 200 OK\r\nx: ", b"x", 200))
}

pub(super) fn endless_body_when_paid(shop: &mut Shop, ask: &Ask) -> Reply {
    let answer = shop.fair(ask);
    if answer.status != 200 {
        return answer.into();
    }
    Reply::endless(format!("{}\r\n", answer.head()), &[b'x'; 16 * 1_024], 10)
}

/// A body of a few kilobytes that is a hundred megabytes once it is unpacked.
pub(super) fn compressed_bomb(shop: &mut Shop, ask: &Ask) -> Reply {
    before(shop, ask, |_| {
        Answer::new(402).with("content-encoding", "gzip").body(bomb(100 * MEGABYTE)).into()
    })
}

/// gzip of so many zeros: one block of fixed codes (RFC 1951, 3.2.6), a zero and then copies of
/// 258 bytes from one byte before. Its checksum is missing, which nobody finds out in time.
fn bomb(bytes: usize) -> Vec<u8> {
    const COPY: [u8; 13] = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
    let zero = [1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0]; // last block, fixed codes, the byte 0
    let bits: Vec<u8> =
        zero.into_iter().chain((0..bytes / 258).flat_map(|_| COPY)).chain([0; 7]).collect();
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    packed.extend(bits.chunks(8).map(byte));
    packed
}

pub(super) fn interim_answers(shop: &mut Shop, ask: &Ask) -> Reply {
    let answer = shop.fair(ask).bytes();
    let mut bytes = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(200).into_bytes();
    bytes.extend_from_slice(&answer);
    Reply::raw(bytes)
}

pub(super) fn switching_protocols(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                    upgrade: websocket\r\n\r\n";
        Reply { lingers: true, ..Reply::raw(head) }
    })
}

/// The receipt comes where nobody looks for it.
pub(super) fn receipt_in_trailers(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, card| {
        let receipt = shop.serve(card, PRICE).head();
        let receipt = receipt.lines().find(|line| line.starts_with("payment-response"));
        let receipt = receipt.unwrap_or_default();
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: payment-response\r\n\r\n\
             7\r\nserved\n\r\n0\r\n{receipt}\r\n\r\n"
        ))
    })
}

/// One request gets two answers: the second is for whoever uses the connection next.
pub(super) fn two_answers(shop: &mut Shop, ask: &Ask) -> Reply {
    let first = shop.fair(ask).bytes();
    let text = String::from_utf8_lossy(&first).replace("connection: close\r\n", "");
    let dear = shop.ask(&[shop.offer_with("amount", 2_000)]).bytes();
    let mut both = text.into_bytes();
    both.extend_from_slice(&dear);
    Reply::raw(both)
}

pub(super) fn two_lengths(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, card| {
        let head = shop.serve(card, PRICE).head();
        Reply::raw(format!("{head}content-length: 3\r\ncontent-length: 7\r\n\r\nserved\n"))
    })
}

pub(super) fn not_http(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| Reply::raw("220 smtp.example ESMTP ready\r\n"))
}

/// Takes part of a body that cannot be sent again, and asks for money.
pub(super) fn price_of_a_stream(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.fair(ask).into()
}

#[cfg(test)]
mod tests {
    use super::{MEGABYTE, bomb};

    #[test]
    fn a_bomb_is_small() {
        assert!(bomb(100 * MEGABYTE).len() < MEGABYTE);
    }
}
