use super::*;

#[test]
fn attributes_round_trip_with_padding_and_nests() {
    let mut batch = Batch::new();
    batch.message("test", 16, ACK, &[0; 16], |a| {
        a.str(3, "if0000v1");
        a.nest(18, |a| {
            a.bytes(1, b"veth!");
            a.be32(2, 7);
        });
    });
    assert_eq!(batch.bytes.len() % 4, 0);
    let length = u32::from_ne_bytes(batch.bytes[..4].try_into().unwrap()) as usize;
    assert_eq!(length, batch.bytes.len());
    let message = Message { kind: 16, payload: batch.bytes[16..].to_vec() };
    let found: Vec<_> = message.attributes(16).collect();
    assert_eq!(text(found[0].1), "if0000v1");
    let inner: Vec<_> = Attributes::new(found[1].1).collect();
    assert_eq!(found[1].0, 18);
    assert_eq!(inner, vec![(1, &b"veth!"[..]), (2, &7u32.to_be_bytes()[..])]);
}

#[test]
fn malformed_attributes_end_the_walk() {
    for bytes in [&[][..], &[4][..], &[0, 0, 1, 0][..], &[3, 0, 1, 0][..], &[200, 0, 1, 0, 5][..]] {
        assert_eq!(Attributes::new(bytes).count(), 0, "{bytes:?}");
    }
}

#[test]
fn oversized_attribute_is_refused_before_it_is_sent() {
    let mut batch = Batch::new();
    batch.message("huge", 16, ACK, &[0; 16], |a| a.bytes(1, &vec![0; 70_000]));
    let mut socket = Socket::open(Protocol::Route).unwrap();
    assert!(socket.transact(&batch).is_err());
}

/// RTM_SETLINK on an index that cannot exist.
#[test]
fn refusals_carry_the_message_that_failed() {
    let mut header = [0u8; 16];
    header[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
    let mut batch = Batch::new();
    batch.message("raise no such link", 19, ACK, &header, |_| {});
    let error = Socket::open(Protocol::Route).unwrap().transact(&batch).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENODEV));
    assert_eq!(error.what, "raise no such link");
}

#[test]
fn a_thread_comes_back_from_another_netns() {
    let name = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let home = name();
    let other = new_netns().unwrap();
    assert_eq!(name(), home);
    let inside = with_netns(other.as_fd(), name).unwrap();
    assert_ne!(inside, home);
    assert_eq!(name(), home);
    let links = with_netns(other.as_fd(), || {
        let mut batch = Batch::new();
        batch.message("list links", 18, DUMP, &[0; 16], |_| {});
        Socket::open(Protocol::Route).unwrap().dump(&batch).unwrap()
    })
    .unwrap();
    assert!(links.iter().any(|m| m.attributes(16).find_kind(3).map(text).as_deref() == Some("lo")));
}
