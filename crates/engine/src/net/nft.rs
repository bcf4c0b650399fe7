//! The words of nf_tables over netlink: tables, chains, sets, elements, rules and the expressions our rules use.
//! Knows the encoding; which rules there are stands in `rules`.

use infield_sys::netlink::{ACK, APPEND, Attributes, Attrs, Batch, CREATE, DUMP, Message, NetlinkError, Socket, text};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NFGEN_BYTES: usize = 4;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const DELTABLE: u16 = NEWTABLE | 2;
const NEWCHAIN: u16 = NEWTABLE | 3;
const GETCHAIN: u16 = NEWTABLE | 4;
const NEWRULE: u16 = NEWTABLE | 6;
const GETRULE: u16 = NEWTABLE | 7;
const DELRULE: u16 = NEWTABLE | 8;
const NEWSET: u16 = NEWTABLE | 9;
const NEWSETELEM: u16 = NEWTABLE | 12;
const GETSETELEM: u16 = NEWTABLE | 13;
const DELSETELEM: u16 = NEWTABLE | 14;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const ELEM_FLAGS: u16 = 3;
const ELEM_INTERVAL_END: u32 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// Elements of one message; 1,000 of the largest kind stay below the 64 KiB an attribute can hold.
const ELEMENTS_PER_MESSAGE_MAX: usize = 1000;

/// Protocol families as nf_tables counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    Inet = 1,
    Ip = 2,
}

/// Hooks and the chain types and priorities that go with them.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

pub const HOOK_FORWARD: u32 = 2;
pub const SET_INTERVAL: u32 = 4;
/// Rules add elements, each with a state of its own.
const SET_DYNAMIC: u32 = 0x20;
/// Types are for `nft list` only; a concatenation is its parts shifted together by 6 bits.
pub const TYPE_ADDRESS: u32 = 7;
pub const TYPE_IFNAME: u32 = 41;
pub const TYPE_IFNAME_ADDRESS: u32 = (TYPE_IFNAME << 6) | TYPE_ADDRESS;
pub const IFNAME_BYTES: usize = 16;

/// First and second 16-byte register; the second follows the first, so a 20-byte key spans both.
const REG_1: u32 = 1;
const REG_2: u32 = 2;
const NFPROTO_IPV4: u8 = 2;

fn header(family: u8, resource: u16) -> [u8; NFGEN_BYTES] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// One change of the rule set: all of it happens or none.
#[derive(Debug)]
pub struct Change {
    batch: Batch,
    family: Family,
    table: String,
    sets: u32,
}

impl Change {
    pub fn new(family: Family, table: &str) -> Self {
        let mut batch = Batch::new();
        batch.message("begin nft change", BATCH_BEGIN, 0, &header(0, SUBSYSTEM), |_| {});
        Self { batch, family, table: table.to_owned(), sets: 0 }
    }

    fn message(&mut self, what: &'static str, kind: u16, flags: u16, body: impl FnOnce(&mut Attrs)) {
        let Self { batch, family, table, .. } = self;
        batch.message(what, kind, flags | ACK, &header(*family as u8, 0), |a| {
            a.str(RULE_TABLE, table); // the table's name is attribute 1 of every kind of message
            body(a);
        });
    }

    pub fn add_table(&mut self) {
        self.message("make nft table", NEWTABLE, CREATE, |_| {});
    }
    pub fn delete_table(&mut self) {
        self.message("delete nft table", DELTABLE, 0, |_| {});
    }
    /// Empties every chain of the table.
    pub fn flush_rules(&mut self) {
        self.message("flush nft rules", DELRULE, 0, |_| {});
    }

    pub fn add_chain(&mut self, chain: &str, hook: Option<Hook>) {
        self.message("make nft chain", NEWCHAIN, CREATE, |a| {
            a.str(3, chain);
            if let Some(hook) = hook {
                a.nest(4, |a| {
                    a.be32(1, hook.number);
                    a.be32(2, hook.priority as u32);
                });
                a.be32(5, 1); // policy accept
                a.str(7, hook.kind);
            }
        });
    }

    pub fn add_set(&mut self, set: &str, flags: u32, key_type: u32, key_bytes: usize) {
        self.sets += 1;
        let id = self.sets;
        self.message("make nft set", NEWSET, CREATE, |a| {
            a.str(2, set);
            a.be32(3, flags);
            a.be32(4, key_type);
            a.be32(5, key_bytes as u32);
            a.be32(10, id);
        });
    }
    /// A set that rules fill: what it counts is kept for each address.
    pub fn add_meter(&mut self, set: &str, addresses_max: u32) {
        self.sets += 1;
        let id = self.sets;
        self.message("make nft meter", NEWSET, CREATE, |a| {
            a.str(2, set);
            a.be32(3, SET_DYNAMIC);
            a.be32(4, TYPE_ADDRESS);
            a.be32(5, 4);
            a.nest(9, |a| a.be32(1, addresses_max));
            a.be32(10, id);
        });
    }
    pub fn flush_set(&mut self, set: &str) {
        self.message("flush nft set", DELSETELEM, 0, |a| a.str(2, set));
    }
    pub fn add_elements(&mut self, set: &str, keys: &[Vec<u8>]) {
        for keys in keys.chunks(ELEMENTS_PER_MESSAGE_MAX) {
            self.message("add nft elements", NEWSETELEM, CREATE, |a| elements(a, set, &plain(keys)));
        }
    }
    /// Address ranges `[first, end)` of an interval set.
    pub fn add_ranges(&mut self, set: &str, ranges: &[(u32, Option<u32>)]) {
        // The kernel wants each end right behind its start, or it sees the ranges overlap.
        let key = |address: u32| address.to_be_bytes().to_vec();
        let bound = |r: &(u32, Option<u32>)| [Some((key(r.0), 0)), r.1.map(|end| (key(end), ELEM_INTERVAL_END))];
        let bounds: Vec<_> = ranges.iter().flat_map(bound).flatten().collect();
        self.message("add nft ranges", NEWSETELEM, CREATE, |a| elements(a, set, &bounds));
    }
    pub fn delete_elements(&mut self, set: &str, keys: &[Vec<u8>]) {
        for keys in keys.chunks(ELEMENTS_PER_MESSAGE_MAX) {
            self.message("delete nft elements", DELSETELEM, 0, |a| elements(a, set, &plain(keys)));
        }
    }

    pub fn add_rule(&mut self, chain: &str, rule: &[Expr]) {
        self.message("add nft rule", NEWRULE, CREATE | APPEND, |a| {
            a.str(RULE_CHAIN, chain);
            a.nest(RULE_EXPRESSIONS, |a| rule.iter().for_each(|e| e.encode(a)));
        });
    }
    /// In front of the chain's other rules, with a comment by which it is found again.
    pub fn insert_rule(&mut self, chain: &str, rule: &[Expr], comment: &str) {
        let userdata = comment_bytes(comment);
        self.message("insert nft rule", NEWRULE, CREATE, |a| {
            a.str(RULE_CHAIN, chain);
            a.nest(RULE_EXPRESSIONS, |a| rule.iter().for_each(|e| e.encode(a)));
            a.bytes(RULE_USERDATA, &userdata);
        });
    }
    pub fn delete_rule(&mut self, chain: &str, handle: u64) {
        self.message("delete nft rule", DELRULE, 0, |a| {
            a.str(RULE_CHAIN, chain);
            a.bytes(RULE_HANDLE, &handle.to_be_bytes());
        });
    }

    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        self.batch.message("end nft change", BATCH_END, 0, &header(0, SUBSYSTEM), |_| {});
        socket.transact(&self.batch).map(drop)
    }
}

fn plain(keys: &[Vec<u8>]) -> Vec<(Vec<u8>, u32)> {
    keys.iter().map(|key| (key.clone(), 0)).collect()
}

/// Elements with their flags.
fn elements(a: &mut Attrs, set: &str, keys: &[(Vec<u8>, u32)]) {
    a.str(2, set);
    a.nest(3, |a| {
        for (key, flags) in keys {
            a.nest(LIST_ELEM, |a| {
                a.nest(ELEM_KEY, |a| a.bytes(DATA_VALUE, key));
                if *flags != 0 {
                    a.be32(ELEM_FLAGS, *flags);
                }
            });
        }
    });
}

/// User data as `nft` and `iptables-nft` write comments: type 0, length, text with NUL.
fn comment_bytes(comment: &str) -> Vec<u8> {
    let mut bytes = vec![0, comment.len() as u8 + 1];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

/// What a rule is made of.
#[derive(Clone, Debug)]
pub enum Expr {
    /// The incoming link's name starts with this.
    IifPrefix(String),
    OifPrefix(String),
    NotIpv4,
    /// The pair (incoming link, source address) is absent from the set.
    SourceNotIn(&'static str),
    DestinationIn(&'static str),
    OifNotIn(&'static str),
    /// The route of the destination is not an ordinary forwarding one: host, broadcast, unreachable.
    DestinationNotUnicast,
    /// Protocol number and destination port.
    Port(u8, u16),
    /// Part of, or related to, a connection that both sides know.
    Established,
    /// An answer: the connection was opened by the other side.
    ReplyDirection,
    /// Some rule of the host rewrote the destination.
    DestinationRewritten,
    /// The first packet of a connection: it has no entry in the connection table yet.
    Unconfirmed,
    /// The source begins more connections a second than this, after a burst.
    FlowRateOver {
        meter: &'static str,
        per_second: u64,
        burst: u32,
    },
    /// The source has more connections than this.
    FlowsOver {
        meter: &'static str,
        count: u32,
    },
    SourceWithin(u32, u32),
    OifNotPrefix(String),
    Counter,
    Masquerade,
    Accept,
    Drop,
    Jump(&'static str),
}

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_STATE_ESTABLISHED: u32 = 1 << 1;
const CT_STATE_RELATED: u32 = 1 << 2;
const CT_STATUS_CONFIRMED: u32 = 1 << 3;
const CT_STATUS_DST_NAT: u32 = 1 << 5;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const IPV4_SOURCE_AT: u32 = 12;
const IPV4_DESTINATION_AT: u32 = 16;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
const RTN_UNICAST: u32 = 1;
const VERDICT_JUMP: i32 = -3;

impl Expr {
    fn encode(&self, a: &mut Attrs) {
        match self {
            Self::IifPrefix(prefix) => name_compare(a, META_IIFNAME, EQUAL, prefix),
            Self::OifPrefix(prefix) => name_compare(a, META_OIFNAME, EQUAL, prefix),
            Self::OifNotPrefix(prefix) => name_compare(a, META_OIFNAME, NOT_EQUAL, prefix),
            Self::NotIpv4 => {
                load_meta(a, META_NFPROTO, REG_1);
                compare(a, NOT_EQUAL, &[NFPROTO_IPV4]);
            }
            Self::SourceNotIn(set) => {
                load_meta(a, META_IIFNAME, REG_1);
                load_payload(a, BASE_NETWORK, IPV4_SOURCE_AT, 4, REG_2);
                lookup(a, set, true);
            }
            Self::DestinationIn(set) => {
                load_payload(a, BASE_NETWORK, IPV4_DESTINATION_AT, 4, REG_1);
                lookup(a, set, false);
            }
            Self::OifNotIn(set) => {
                load_meta(a, META_OIFNAME, REG_1);
                lookup(a, set, true);
            }
            Self::DestinationNotUnicast => destination_not_unicast(a),
            Self::Port(protocol, port) => {
                load_meta(a, META_L4PROTO, REG_1);
                compare(a, EQUAL, &[*protocol]);
                load_payload(a, BASE_TRANSPORT, 2, 2, REG_1);
                compare(a, EQUAL, &port.to_be_bytes());
            }
            Self::Established => ct_bits(a, CT_STATE, CT_STATE_ESTABLISHED | CT_STATE_RELATED),
            Self::DestinationRewritten => ct_bits(a, CT_STATUS, CT_STATUS_DST_NAT),
            Self::ReplyDirection => {
                load_ct(a, CT_DIRECTION);
                compare(a, EQUAL, &[1]);
            }
            Self::Unconfirmed => {
                load_ct(a, CT_STATUS);
                mask_register(a, &CT_STATUS_CONFIRMED.to_ne_bytes());
                compare(a, EQUAL, &[0; 4]);
            }
            Self::FlowRateOver { meter, per_second, burst } => by_source(a, meter, "limit", |a| {
                a.bytes(1, &per_second.to_be_bytes());
                a.bytes(2, &1u64.to_be_bytes());
                a.be32(3, *burst);
                a.be32(5, 1); // over, not up to
            }),
            Self::FlowsOver { meter, count } => by_source(a, meter, "connlimit", |a| {
                a.be32(1, *count);
                a.be32(2, 1); // over, not up to
            }),
            Self::SourceWithin(network, mask) => {
                load_payload(a, BASE_NETWORK, IPV4_SOURCE_AT, 4, REG_1);
                mask_register(a, &mask.to_be_bytes());
                compare(a, EQUAL, &network.to_be_bytes());
            }
            Self::Counter => expression(a, "counter", |a| {
                a.bytes(1, &0u64.to_be_bytes());
                a.bytes(2, &0u64.to_be_bytes());
            }),
            Self::Masquerade => expression(a, "masq", |_| {}),
            Self::Drop => verdict(a, 0, None),
            Self::Accept => verdict(a, 1, None),
            Self::Jump(chain) => verdict(a, VERDICT_JUMP, Some(chain)),
        }
    }
}

fn destination_not_unicast(a: &mut Attrs) {
    expression(a, "fib", |a| {
        a.be32(1, REG_1);
        a.be32(2, FIB_RESULT_ADDRTYPE);
        a.be32(3, FIB_DESTINATION);
    });
    compare(a, NOT_EQUAL, &RTN_UNICAST.to_ne_bytes());
}

fn expression(a: &mut Attrs, name: &str, data: impl FnOnce(&mut Attrs)) {
    a.nest(LIST_ELEM, |a| {
        a.str(1, name);
        a.nest(2, data);
    });
}
fn load_meta(a: &mut Attrs, key: u32, register: u32) {
    expression(a, "meta", |a| {
        a.be32(1, register);
        a.be32(2, key);
    });
}
fn load_ct(a: &mut Attrs, key: u32) {
    expression(a, "ct", |a| {
        a.be32(1, REG_1);
        a.be32(2, key);
    });
}
fn load_payload(a: &mut Attrs, base: u32, offset: u32, length: u32, register: u32) {
    expression(a, "payload", |a| {
        a.be32(1, register);
        a.be32(2, base);
        a.be32(3, offset);
        a.be32(4, length);
    });
}
fn compare(a: &mut Attrs, operator: u32, value: &[u8]) {
    expression(a, "cmp", |a| {
        a.be32(1, REG_1);
        a.be32(2, operator);
        a.nest(3, |a| a.bytes(DATA_VALUE, value));
    });
}
/// A name shorter than the register, without its NUL, compares as a prefix.
fn name_compare(a: &mut Attrs, key: u32, operator: u32, prefix: &str) {
    load_meta(a, key, REG_1);
    compare(a, operator, prefix.as_bytes());
}
fn mask_register(a: &mut Attrs, mask: &[u8; 4]) {
    expression(a, "bitwise", |a| {
        a.be32(1, REG_1);
        a.be32(2, REG_1);
        a.be32(3, 4);
        a.nest(4, |a| a.bytes(DATA_VALUE, mask));
        a.nest(5, |a| a.bytes(DATA_VALUE, &[0; 4]));
    });
}
fn ct_bits(a: &mut Attrs, key: u32, bits: u32) {
    load_ct(a, key);
    mask_register(a, &bits.to_ne_bytes());
    compare(a, NOT_EQUAL, &[0; 4]);
}
fn lookup(a: &mut Attrs, set: &str, inverted: bool) {
    expression(a, "lookup", |a| {
        a.str(1, set);
        a.be32(2, REG_1);
        if inverted {
            a.be32(5, 1);
        }
    });
}
/// Asks the source address's own copy of an expression, which is made at the first packet.
fn by_source(a: &mut Attrs, meter: &str, name: &str, data: impl FnOnce(&mut Attrs)) {
    load_payload(a, BASE_NETWORK, IPV4_SOURCE_AT, 4, REG_1);
    expression(a, "dynset", |a| {
        a.str(1, meter);
        a.be32(3, 0); // add
        a.be32(4, REG_1);
        a.nest(7, |a| {
            a.str(1, name);
            a.nest(2, data);
        });
    });
}
fn verdict(a: &mut Attrs, code: i32, chain: Option<&str>) {
    expression(a, "immediate", |a| {
        a.be32(1, 0); // the verdict register
        a.nest(2, |a| {
            a.nest(DATA_VERDICT, |a| {
                a.be32(1, code as u32);
                if let Some(chain) = chain {
                    a.str(2, chain);
                }
            });
        });
    });
}

/// A rule found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
}

/// A chain found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundChain {
    pub table: String,
    pub name: String,
    /// The base chain drops what no rule accepts.
    pub policy_drop: bool,
    /// It sees forwarded packets.
    pub forward: bool,
}

fn dump(
    socket: &mut Socket,
    what: &'static str,
    kind: u16,
    family: Family,
    body: impl FnOnce(&mut Attrs),
) -> Result<Vec<Message>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(what, kind, DUMP, &header(family as u8, 0), body);
    match socket.dump(&batch) {
        Err(e) if e.errno() == Some(2) => Ok(Vec::new()), // ENOENT: the table or set is not there
        other => other,
    }
}

/// Every chain of the family.
pub fn chains(socket: &mut Socket, family: Family) -> Result<Vec<FoundChain>, NetlinkError> {
    let messages = dump(socket, "list nft chains", GETCHAIN, family, |_| {})?;
    Ok(messages
        .iter()
        .filter_map(|m| {
            let a = m.attributes(NFGEN_BYTES);
            Some(FoundChain {
                table: text(a.find_kind(1)?),
                name: text(a.find_kind(3)?),
                policy_drop: a.find_kind(5) == Some(&[0; 4]),
                forward: a.find_kind(4).and_then(|h| Attributes::new(h).find_kind(1))
                    == Some(&HOOK_FORWARD.to_be_bytes()),
            })
        })
        .collect())
}

/// Every rule of the table; none when there is no such table.
pub fn rules(socket: &mut Socket, family: Family, table: &str) -> Result<Vec<FoundRule>, NetlinkError> {
    let messages = dump(socket, "list nft rules", GETRULE, family, |a| a.str(RULE_TABLE, table))?;
    Ok(messages
        .iter()
        .filter_map(|m| {
            let a = m.attributes(NFGEN_BYTES);
            if text(a.find_kind(RULE_TABLE)?) != table {
                return None; // kernels that do not filter dumps
            }
            let comment =
                a.find_kind(RULE_USERDATA).filter(|d| d.first() == Some(&0)).and_then(|d| d.get(2..)).map(text);
            let handle = u64::from_be_bytes(a.find_kind(RULE_HANDLE)?.try_into().ok()?);
            Some(FoundRule { chain: text(a.find_kind(RULE_CHAIN)?), handle, comment })
        })
        .collect())
}

/// The keys in a set; none when there is no such set.
pub fn elements_of(socket: &mut Socket, family: Family, table: &str, set: &str) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let messages = dump(socket, "list nft elements", GETSETELEM, family, |a| {
        a.str(1, table);
        a.str(2, set);
    })?;
    let mut keys = Vec::new();
    for message in &messages {
        let Some(list) = message.attributes(NFGEN_BYTES).find_kind(3) else { continue };
        for (_, element) in Attributes::new(list) {
            let key =
                Attributes::new(element).find_kind(ELEM_KEY).and_then(|k| Attributes::new(k).find_kind(DATA_VALUE));
            keys.extend(key.map(<[u8]>::to_vec));
        }
    }
    Ok(keys)
}
