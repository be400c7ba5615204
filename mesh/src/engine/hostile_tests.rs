//! What someone between two members, or one of them, may try.

use super::*;

/// A hostile network or relay: everything again, from elsewhere, and altered.
#[test]
fn what_was_seen_before_counts_for_nothing() {
    let (one, two) = pair();
    let (mut sink, datagrams) = (Sink::default(), sent(&one, &[packet(1, 2, 500)]));
    deliver(&datagrams, &two, 1, &mut sink);
    assert_eq!(sink.0.len(), 1);
    let way = two.peer(one.key()).unwrap().lock().paths.current();
    for from in [1, 9] {
        let answers = deliver(&datagrams, &two, from, &mut sink);
        assert_eq!((sink.0.len(), answers.sends().count()), (1, 0));
    }
    let mut altered = Outbox::default();
    for (_, bytes) in datagrams.sends() {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        altered.push(Way::Direct(place(2)), &bytes);
    }
    deliver(&altered, &two, 9, &mut sink);
    // Nor is a plain peer, which roams, moved by any of it.
    let now = two.peer(one.key()).unwrap().lock().paths.current();
    assert_eq!((sink.0.len(), now), (1, way));
    assert_works(&one, &two);
}

#[test]
fn a_handshake_seen_before_is_not_answered_again() {
    let (one, two, now) = (engine(), engine(), Instant::now());
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    two.set_peers(&[peer(&one, 1)], &mut Outbox::default(), now)
        .unwrap();
    one.set_peers(&[peer(&two, 2)], &mut out, now).unwrap();
    assert_eq!(deliver(&out, &two, 1, &mut sink).sends().count(), 1);
    for from in [1, 9] {
        assert_eq!(deliver(&out, &two, from, &mut sink).sends().count(), 0);
    }
}

#[test]
fn a_member_that_uses_anothers_address_is_not_heard() {
    let (one, two) = pair();
    let mut sink = Sink::default();
    deliver(&sent(&one, &[packet(3, 2, 500)]), &two, 1, &mut sink);
    assert_eq!(sink.0.len(), 0);
    assert_works(&one, &two);
}
