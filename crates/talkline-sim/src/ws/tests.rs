use super::*;

/// What a server makes of these bytes: all it parses, then what stopped it.
fn parse_as(role: Role, bytes: &[u8]) -> (Vec<Incoming>, Option<u16>) {
    let mut parser = Parser::new(role);
    parser.buffer.extend_from_slice(bytes);
    let mut all = Vec::new();
    loop {
        match parser.next() {
            Ok(Some(incoming)) => all.push(incoming),
            Ok(None) => return (all, None),
            Err(violation) => return (all, Some(violation.code)),
        }
    }
}

fn check_violation(bytes: &[u8], code: u16) {
    assert_eq!(
        parse_as(Role::Client, bytes),
        (vec![], Some(code)),
        "{bytes:x?}"
    );
}

#[test]
fn rfc_6455_examples() {
    let masked_hello = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    let hello = Incoming::Text("Hello".to_owned());
    assert_eq!(
        parse_as(Role::Server, &masked_hello),
        (vec![hello.clone()], None)
    );
    let fragmented = b"\x01\x03Hel\x80\x02lo";
    assert_eq!(parse_as(Role::Client, fragmented), (vec![hello], None));
    assert_eq!(
        accept_for("dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

#[test]
fn violations() {
    assert_eq!(parse_as(Role::Server, b"\x81\x01a"), (vec![], Some(1002)));
    check_violation(b"\x81\x81\0\0\0\0a", 1002);
    check_violation(b"\xc1\x01a", 1002);
    check_violation(b"\x83\x01a", 1002);
    check_violation(b"\x80\x01a", 1002);
    check_violation(b"\x01\x01a\x81\x01b", 1002);
    check_violation(b"\x09\x00", 1002);
    check_violation(b"\x89\x7e\x00\x7e", 1002);
    check_violation(b"\x81\x7e\x00\x7d", 1002);
    check_violation(b"\x81\x7f\0\0\0\0\0\0\xff\xff", 1002);
    check_violation(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 1009);
    check_violation(b"\x81\x01\xff", 1007);
    check_violation(b"\x01\x01\xc3\x80\x00", 1007);
    check_violation(b"\x88\x01a", 1002);
    check_violation(b"\x88\x02\x03\xed", 1002);
    check_violation(b"\x88\x03\x03\xe8\xff", 1007);
}

#[test]
fn fragments_are_limited_together() {
    let mut parser = Parser::new(Role::Client);
    let big = frame(
        Role::Server,
        false,
        Opcode::Binary,
        &vec![0; MESSAGE_BYTES_MAX],
    );
    parser.buffer.extend_from_slice(&big);
    assert_eq!(parser.next(), Ok(None));
    parser.buffer.extend_from_slice(b"\x80\x01a");
    assert_eq!(parser.next().unwrap_err().code, 1009);
}

#[test]
fn any_split_gives_the_same_messages() {
    let mut bytes = fragmented_text(Role::Client, "grüße, grüße", 3);
    bytes.extend(frame(Role::Client, true, Opcode::Binary, &[7; 300]));
    bytes.extend(frame(Role::Client, true, Opcode::Pong, b"p"));
    bytes.extend(close_frame(Role::Client, 1008, "why"));
    let whole = parse_as(Role::Server, &bytes);
    assert_eq!(whole.0.len(), 5);
    for step in 1..20 {
        let mut parser = Parser::new(Role::Server);
        let mut all = Vec::new();
        for chunk in bytes.chunks(step) {
            parser.buffer.extend_from_slice(chunk);
            while let Some(incoming) = parser.next().unwrap() {
                all.push(incoming);
            }
        }
        assert_eq!(all, whole.0, "in steps of {step}");
    }
}

#[test]
fn every_length_form_reads_back() {
    for length in [0, 125, 126, 0xffff, 0x1_0000] {
        let message = Incoming::Binary(vec![1; length]);
        let bytes = frame(Role::Client, true, Opcode::Binary, &vec![1; length]);
        assert_eq!(parse_as(Role::Server, &bytes), (vec![message], None));
    }
}

#[test]
fn a_long_close_reason_is_cut_between_characters() {
    let bytes = close_frame(Role::Server, 1011, &"é".repeat(100));
    let expected = Incoming::Close(Some((1011, "é".repeat(61))));
    assert_eq!(parse_as(Role::Client, &bytes), (vec![expected], None));
}
