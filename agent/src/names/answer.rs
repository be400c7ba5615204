//! One DNS query and its answer (RFC 1035, EDNS of RFC 6891), without IO.

use super::table::Table;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Longest query that is read, in bytes; an honest one has at most 300.
pub const MAX_QUERY: usize = 1232;
/// No answer is longer, in bytes, so none is ever truncated: what RFC 1035 lets UDP carry.
pub const MAX_ANSWER: usize = 512;
/// Seconds that an answer may be kept.
const TTL: u32 = 60;
/// And one that there is no such name: a node that joins should be found soon.
const NEGATIVE_TTL: u32 = 5;
/// Bytes of a message's header.
const HEADER: usize = 12;

/// The answer to `query`; none where an answer could only feed a loop.
pub fn answer(query: &[u8], table: &Table) -> Option<Vec<u8>> {
    if query.len() < HEADER || query.len() > MAX_QUERY {
        return None;
    }
    let Ok(asked) = Message::from_vec(query) else {
        // The top bit of the third byte marks an answer (RFC 1035, 4.1.1).
        let [a, b, flags, ..] = query else {
            return None;
        };
        let broken = Message::error_msg(
            u16::from_be_bytes([*a, *b]),
            OpCode::Query,
            ResponseCode::FormErr,
        );
        return (flags & 0x80 == 0).then(|| broken.to_vec().ok())?;
    };
    if asked.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&asked.metadata);
    reply.metadata.response_code = fill(&asked, table, &mut reply);
    if let Some(edns) = &asked.edns {
        let mut own = Edns::new();
        own.set_max_payload(MAX_QUERY as u16);
        if edns.version() > 0 {
            reply.answers.clear();
            reply.authorities.clear();
            reply.metadata.response_code = ResponseCode::BADVERS;
        }
        own.set_rcode_high(reply.metadata.response_code.high());
        reply.edns = Some(own);
    }
    reply
        .to_vec()
        .ok()
        .filter(|bytes| bytes.len() <= MAX_ANSWER)
}

/// Puts the records into `reply` and says how the query ended.
fn fill(asked: &Message, table: &Table, reply: &mut Message) -> ResponseCode {
    if asked.metadata.op_code != OpCode::Query {
        return ResponseCode::NotImp;
    }
    let [question] = asked.queries.as_slice() else {
        return ResponseCode::FormErr;
    };
    reply.queries = vec![question.clone()];
    let Ok(zone) = Name::from_ascii(format!("{}.", table.zone)) else {
        return ResponseCode::ServFail;
    };
    let kind = question.query_type();
    let transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR);
    if question.query_class() != DNSClass::IN || transfer || !zone.zone_of(question.name()) {
        return ResponseCode::Refused;
    }
    reply.metadata.authoritative = true;
    let soa = soa(&zone);
    let name = question.name().clone();
    let below = name.num_labels().saturating_sub(zone.num_labels());
    let label = name.iter().next().map(<[u8]>::to_ascii_lowercase);
    let found = label.and_then(|l| table.names.get(std::str::from_utf8(&l).ok()?));
    let data = match (below, found, kind) {
        (0, _, RecordType::SOA) => Some(RData::SOA(soa.clone())),
        // Of any kind: one is enough (RFC 8482).
        (1, Some(at), RecordType::A | RecordType::ANY) => Some(RData::A(A(at.v4))),
        (1, Some(at), RecordType::AAAA) => Some(RData::AAAA(AAAA(at.v6))),
        _ => None,
    };
    match data {
        Some(data) => reply.answers = vec![Record::from_rdata(name, TTL, data)],
        // Says how long "no" may be kept (RFC 2308).
        None => reply.authorities = vec![Record::from_rdata(zone, NEGATIVE_TTL, RData::SOA(soa))],
    }
    if below == 0 || (below == 1 && found.is_some()) {
        ResponseCode::NoError
    } else {
        ResponseCode::NXDomain
    }
}

fn soa(zone: &Name) -> SOA {
    // Nobody transfers the zone: serial and times but the last are for form's sake.
    let minimum = NEGATIVE_TTL;
    SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86400, minimum)
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::demo;
    use super::*;
    use hickory_proto::op::Query;
    use proptest::prelude::*;

    fn ask(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn told(message: &Message) -> Message {
        let bytes = answer(&message.to_vec().unwrap(), &demo()).unwrap();
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.metadata.id, message.metadata.id);
        reply
    }

    #[test]
    fn a_member_has_both_addresses_in_any_case() {
        let at = demo().names["n1"];
        for name in ["n1.demo.internal.", "N1.DeMo.INTERNAL."] {
            let four = told(&ask(name, RecordType::A));
            assert_eq!(four.answers[0].data, RData::A(A(at.v4)));
            assert_eq!(four.answers[0].name.to_ascii(), name);
            assert!(four.metadata.authoritative);
            let six = told(&ask(name, RecordType::AAAA));
            assert_eq!(six.answers[0].data, RData::AAAA(AAAA(at.v6)));
            assert_eq!(told(&ask(name, RecordType::ANY)).answers.len(), 1);
        }
    }

    #[test]
    fn what_is_not_there_and_what_is_not_ours_are_told_apart() {
        let code = |name, kind| {
            let reply = told(&ask(name, kind));
            (
                reply.metadata.response_code,
                reply.answers.len(),
                reply.authorities.len(),
            )
        };
        let none = (ResponseCode::NoError, 0, 1);
        assert_eq!(code("n1.demo.internal.", RecordType::TXT), none);
        assert_eq!(code("demo.internal.", RecordType::A), none);
        let soa = (ResponseCode::NoError, 1, 0);
        assert_eq!(code("demo.internal.", RecordType::SOA), soa);
        let unknown = (ResponseCode::NXDomain, 0, 1);
        assert_eq!(code("n2.demo.internal.", RecordType::A), unknown);
        assert_eq!(code("x.n1.demo.internal.", RecordType::A), unknown);
        assert_eq!(code("n1.n1.demo.internal.", RecordType::A), unknown);
        let refused = (ResponseCode::Refused, 0, 0);
        for name in ["example.org.", "internal.", "n1.other.internal.", "."] {
            assert_eq!(code(name, RecordType::A), refused);
        }
        assert_eq!(code("demo.internal.", RecordType::AXFR), refused);
    }

    #[test]
    fn odd_messages_get_a_fault_or_nothing() {
        let mut other = ask("n1.demo.internal.", RecordType::A);
        other.metadata.op_code = OpCode::Update;
        assert_eq!(told(&other).metadata.response_code, ResponseCode::NotImp);
        let mut two = ask("n1.demo.internal.", RecordType::A);
        two.add_query(two.queries[0].clone());
        assert_eq!(told(&two).metadata.response_code, ResponseCode::FormErr);
        let mut later = ask("n1.demo.internal.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_version(1);
        later.edns = Some(edns);
        let reply = told(&later);
        // 16, which TSIG calls BADSIG.
        assert_eq!(u16::from(reply.metadata.response_code), 16);
        assert!(reply.answers.is_empty());
        let whole = ask("n1.demo.internal.", RecordType::A).to_vec().unwrap();
        let cut = answer(&whole[..whole.len() - 3], &demo()).unwrap();
        let cut = Message::from_vec(&cut).unwrap();
        assert_eq!(cut.metadata.response_code, ResponseCode::FormErr);
        let mut back = ask("n1.demo.internal.", RecordType::A);
        back.metadata.message_type = MessageType::Response;
        assert_eq!(answer(&back.to_vec().unwrap(), &demo()), None);
        assert_eq!(answer(&whole[..11], &demo()), None);
        assert_eq!(answer(&vec![0; MAX_QUERY + 1], &demo()), None);
    }

    /// A real query with some bytes changed, cut or added.
    fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let name = prop::sample::select(vec!["n1.demo.internal.", "a.b.", "demo.internal."]);
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        let tail = prop::collection::vec(any::<u8>(), 0..40);
        (
            name,
            any::<bool>(),
            changes,
            tail,
            any::<prop::sample::Index>(),
        )
            .prop_map(|(name, edns, changes, tail, cut)| {
                let mut message = ask(name, RecordType::A);
                message.edns = edns.then(Edns::new);
                let mut bytes = message.to_vec().unwrap();
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes.extend(tail);
                let keep = cut.index(bytes.len() * 2).min(bytes.len());
                bytes.truncate(keep);
                bytes
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn no_bytes_panic_and_every_answer_parses(
            bytes in prop_oneof![mutated(), prop::collection::vec(any::<u8>(), 0..1400)]
        ) {
            if let Some(reply) = answer(&bytes, &demo()) {
                prop_assert!(reply.len() <= MAX_ANSWER);
                let reply = Message::from_vec(&reply).unwrap();
                prop_assert_eq!(reply.metadata.message_type, MessageType::Response);
                prop_assert_eq!(&reply.metadata.id.to_be_bytes()[..], &bytes[..2]);
            }
        }
    }
}
