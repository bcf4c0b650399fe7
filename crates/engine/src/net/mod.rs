//! The network of one host's sandboxes: a routed veth per slot, one nf_tables table, no bridge.
//!
//! Speaks netlink only, no `ip` or `nft` command. Blocking and thread-safe. Knows slots and network namespaces; does not
//! know sandboxes, records or who asked. All of its state is in the kernel too, so a restarted server continues where the
//! killed one stopped.
//!
//! Layout: the host end `if<tag>v<slot>` has no address, only a /32 route and a permanent neighbour; inside, `eth0` has the
//! slot's /32 and a default route via 169.254.1.1, again with a permanent neighbour. No packet ever asks by ARP.

mod conntrack;
mod docker;
mod error;
pub(crate) mod link;
pub(crate) mod nft;
mod resolver;
mod rules;
pub(crate) mod subnet;

pub use error::{NetError, show};

/// What no sandbox reaches wherever routes lead, and nobody else who only has an API key: metadata services among them.
pub(crate) fn never_reached() -> impl Iterator<Item = (Ipv4Addr, u8)> {
    rules::DENIED.into_iter()
}

use infield_sys::netlink::{Batch, NetlinkError, Protocol, Socket, with_netns};
use resolver::Resolvers;
use rules::RuleSet;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};
use subnet::Subnet;

/// Gateway of every sandbox; exists nowhere, the permanent neighbour entry makes it work.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const INNER_LINK: &str = "eth0";
const LOOPBACK_INDEX: i32 = 1;
/// A link name holds 15 bytes: `if`, the tag, `v`, and up to 8 digits. One length, so that no tag is another's beginning.
const TAG_BYTES: usize = 4;
const SLOTS_MAX: u32 = 99_999_999;
pub(crate) const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Set inside each sandbox: any user may listen on any port and send pings, as in other container engines.
const INNER_SETTINGS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"), ("/proc/sys/net/ipv4/ping_group_range", "0 65535")];

const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const ENODEV: i32 = 19;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Tells servers on one host apart; 4 lower-case letters or digits.
    pub tag: String,
    /// Sandboxes' addresses, from the third on.
    pub subnet: (Ipv4Addr, u8),
    /// Name servers for sandboxes; `None` = the host's.
    pub dns: Option<Vec<IpAddr>>,
}

/// The open network. Dropping it leaves everything in place: sandboxes outlive the server.
#[derive(Debug)]
pub struct Net {
    config: NetConfig,
    subnet: Subnet,
    table: String,
    link_prefix: String,
    forwarding_was_off: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    route: Socket,
    nft: Socket,
    /// Plugged slots; true = blocked.
    slots: BTreeMap<u32, bool>,
    /// Unplugged slots whose addresses the kernel may still remember connections of.
    used: BTreeSet<u32>,
    uplinks: BTreeSet<String>,
    resolvers: Resolvers,
}

impl Net {
    /// Takes over what an earlier server with this tag left, or starts fresh. Fails when the subnet is in use.
    ///
    /// A slot whose link is there but whose rules are gone (someone flushed them) comes back blocked.
    pub fn open(config: &NetConfig) -> Result<Self, NetError> {
        let tag = &config.tag;
        let tag_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if tag.len() != TAG_BYTES || !tag.bytes().all(tag_ok) {
            return Err(NetError::Config(format!("network tag {tag:?}: use {TAG_BYTES} of a-z and 0-9")));
        }
        let (table, link_prefix) = (format!("infield_{tag}"), format!("{}{tag}v", rules::LINK_PREFIX));
        let mut route = Socket::open(Protocol::Route).map_err(NetError::io("open a route netlink socket"))?;
        let mut nft = Socket::open(Protocol::Netfilter).map_err(NetError::io("open a netfilter netlink socket"))?;
        let known = rules::slots_in(&mut nft, &table, &link_prefix, "slots")?;
        let open = rules::slots_in(&mut nft, &table, &link_prefix, "egress")?;
        let links = link::list(&mut route).map_err(NetError::kernel("list network links"))?;
        let with_link = links.values().filter_map(|name| slot_of_link(&link_prefix, name));
        let slots = known.iter().copied().chain(with_link).map(|slot| (slot, !open.contains(&slot))).collect();
        let resolvers = Resolvers::of_host(config.dns.as_deref());
        let state = State { route, nft, slots, used: BTreeSet::new(), uplinks: BTreeSet::new(), resolvers };
        let subnet = Subnet::new(config.subnet)?;
        let mut net = Self {
            config: config.clone(),
            subnet,
            table,
            link_prefix,
            forwarding_was_off: false,
            state: Mutex::new(state),
        };
        net.start()?;
        Ok(net)
    }

    fn start(&mut self) -> Result<(), NetError> {
        let mut state = self.state();
        let routes = HostRoutes::read(&mut state.route)?;
        self.check_subnet(&routes)?; // before anything is changed
        self.claim_subnet(&mut state, &routes)?;
        state.uplinks = routes.uplinks();
        self.rule_set(&state).install(&mut open_nft()?)?;
        docker::ensure(&mut state.nft, &self.table, &self.link_prefix)?;
        let live: HashSet<Ipv4Addr> = state.slots.keys().map(|slot| self.address(*slot)).collect();
        conntrack::forget(&mut state.nft, |a| self.subnet.overlaps(a, 32) && !live.contains(&a))?;
        drop(state);
        self.forwarding_was_off = enable_forwarding()?;
        Ok(())
    }

    /// Whether packets were not forwarded on this host before (and are now, as sandboxes need it).
    pub fn forwarding_was_off(&self) -> bool {
        self.forwarding_was_off
    }

    pub fn slots_max(&self) -> u32 {
        self.subnet.slots_max().min(SLOTS_MAX)
    }

    /// The address of a slot below [`Self::slots_max`].
    pub fn address(&self, slot: u32) -> Ipv4Addr {
        self.subnet.address(slot)
    }

    pub fn resolv_conf(&self) -> String {
        self.state().resolvers.file()
    }

    /// Gives the namespace its `eth0` and lets the slot out to the internet. A slot that is plugged already is plugged anew.
    /// On failure nothing is left. Call [`Self::set_blocked`] before the sandbox runs if it must not get out.
    pub fn plug(&self, slot: u32, netns: BorrowedFd<'_>) -> Result<(), NetError> {
        if slot >= self.slots_max() {
            return Err(error::slot_out_of_range(slot, self.slots_max()));
        }
        let done = self.plug_host_end(slot, netns).and_then(|()| self.plug_inside(slot, netns)).and_then(|()| {
            // The kernel starts to send on the host's end some time after the peer came up, and drops what is sent before;
            // asking for the link makes it do so now.
            link::index_of(&mut self.state().route, &self.link_name(slot))
                .map(drop)
                .map_err(NetError::kernel(format!("plug slot {slot}: wait for its link")))
        });
        if done.is_err() {
            let _ = self.remove(&[slot]); // the first failure is the one to report
        }
        done
    }

    fn plug_host_end(&self, slot: u32, netns: BorrowedFd<'_>) -> Result<(), NetError> {
        let failed = |step: &str| NetError::kernel(format!("plug slot {slot}: {step}"));
        let name = self.link_name(slot);
        let mut state = self.state();
        let mut batch = Batch::new();
        link::add_veth(&mut batch, &name, mac(slot, HOST_END), (INNER_LINK, mac(slot, INNER_END)), netns.as_raw_fd());
        match state.route.transact(&batch) {
            Err(e) if e.errno() == Some(EEXIST) => {
                // The slot's former namespace is still being taken down; its end goes now.
                state.used.insert(slot);
                delete_links(&mut state.route, &[&name]).map_err(failed("remove the former link"))?;
                state.route.transact(&batch).map_err(failed("create its link"))?;
            }
            other => drop(other.map_err(failed("create its link"))?),
        }
        let index = link::index_of(&mut state.route, &name).map_err(failed("find its link"))?;
        let index = index.ok_or_else(|| NetError::Config(format!("link {name} vanished while it was set up")))?;
        let mut batch = Batch::new();
        link::add_host_route(&mut batch, index, self.address(slot));
        link::add_neighbour(&mut batch, index, self.address(slot), mac(slot, INNER_END));
        state.route.transact(&batch).map_err(failed("set up the host's end"))?;
        if state.used.contains(&slot) {
            // All at once: slots come back in turn, so this happens once per round.
            let used: HashSet<Ipv4Addr> = state.used.iter().map(|slot| self.address(*slot)).collect();
            conntrack::forget(&mut state.nft, |address| used.contains(&address))?;
            state.used.clear();
        }
        let key = [rules::slot_key(&self.link_prefix, self.subnet, slot)];
        let mut change = nft::Change::new(nft::Family::Inet, &self.table);
        change.add_elements("slots", &key);
        change.add_elements("egress", &key);
        let done = change.commit(&mut state.nft);
        state.slots.insert(slot, false); // a failure from here on is undone by the caller
        match done {
            // Someone flushed the rules a moment ago: no slot runs without them.
            Err(e) if e.errno() == Some(ENOENT) => self.rule_set(&state).install(&mut open_nft()?),
            other => other.map_err(failed("let it through the packet rules")),
        }
    }

    fn plug_inside(&self, slot: u32, netns: BorrowedFd<'_>) -> Result<(), NetError> {
        let failed = |step: &str| NetError::kernel(format!("plug slot {slot}: {step}"));
        let enter = NetError::io(format!("plug slot {slot}: enter its network namespace"));
        let work = || -> Result<(), NetError> {
            let mut socket = Socket::open(Protocol::Route).map_err(NetError::io("open a netlink socket inside"))?;
            let index = link::index_of(&mut socket, INNER_LINK).map_err(failed("find eth0"))?;
            let index =
                index.ok_or_else(|| NetError::Config(format!("slot {slot}: eth0 vanished from its namespace")))?;
            let mut batch = Batch::new();
            link::raise(&mut batch, LOOPBACK_INDEX);
            link::raise(&mut batch, index);
            link::add_address(&mut batch, index, self.address(slot));
            link::add_default_route(&mut batch, index, GATEWAY);
            link::add_neighbour(&mut batch, index, GATEWAY, mac(slot, HOST_END));
            socket.transact(&batch).map_err(failed("set up eth0"))?;
            for (path, value) in INNER_SETTINGS {
                fs::write(path, value).map_err(NetError::io(format!("plug slot {slot}: write {path}")))?;
            }
            Ok(())
        };
        with_netns(netns, work).map_err(enter)?
    }

    /// Cuts the slot off at once. The link itself goes with the namespace (deleting it here would cost 25 ms); when the
    /// namespace stays, [`Self::sweep`] removes it. `Ok` when the slot was not plugged.
    pub fn unplug(&self, slot: u32) -> Result<(), NetError> {
        let mut state = self.state();
        self.forget(&mut state, slot)
    }

    fn forget(&self, state: &mut State, slot: u32) -> Result<(), NetError> {
        let failed = || NetError::kernel(format!("unplug slot {slot}: remove it from the packet rules"));
        if let Some(false) = state.slots.get(&slot) {
            self.egress(state, slot, false).map_err(failed())?;
        }
        let mut change = nft::Change::new(nft::Family::Inet, &self.table);
        change.delete_elements("slots", &[rules::slot_key(&self.link_prefix, self.subnet, slot)]);
        ignore(change.commit(&mut state.nft), ENOENT).map_err(failed())?;
        if state.slots.remove(&slot).is_some() {
            state.used.insert(slot);
        }
        Ok(())
    }

    /// A blocked slot gets no egress at all, established connections included; the host still reaches it.
    pub fn set_blocked(&self, slot: u32, blocked: bool) -> Result<(), NetError> {
        let mut state = self.state();
        if !state.slots.contains_key(&slot) {
            return Err(NetError::NotPlugged { slot });
        }
        self.egress(&mut state, slot, !blocked)
            .map_err(NetError::kernel(format!("change the egress of slot {slot}")))?;
        state.slots.insert(slot, blocked);
        Ok(())
    }

    fn egress(&self, state: &mut State, slot: u32, open: bool) -> Result<(), NetlinkError> {
        let key = [rules::slot_key(&self.link_prefix, self.subnet, slot)];
        let mut change = nft::Change::new(nft::Family::Inet, &self.table);
        if open {
            change.add_elements("egress", &key);
            change.commit(&mut state.nft)
        } else {
            change.delete_elements("egress", &key);
            ignore(change.commit(&mut state.nft), ENOENT)
        }
    }

    /// Removes links and rule elements of every slot that is not in `live`; answers how many slots that were.
    pub fn sweep(&self, live: &HashSet<u32>) -> Result<usize, NetError> {
        let dead: Vec<u32> = {
            let mut state = self.state();
            let links = link::list(&mut state.route).map_err(NetError::kernel("list network links"))?;
            let linked = links.values().filter_map(|name| slot_of_link(&self.link_prefix, name));
            let all: BTreeSet<u32> = linked.chain(state.slots.keys().copied()).collect();
            all.into_iter().filter(|slot| !live.contains(slot)).collect()
        };
        self.remove(&dead)?;
        Ok(dead.len())
    }

    fn remove(&self, slots: &[u32]) -> Result<(), NetError> {
        let mut state = self.state();
        for slot in slots {
            self.forget(&mut state, *slot)?;
        }
        let names: Vec<String> = slots.iter().map(|slot| self.link_name(*slot)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        delete_links(&mut state.route, &names).map_err(NetError::kernel("remove links of dead sandboxes"))
    }

    /// Repairs what others may have changed: forwarding, a flushed table, the default route's link, resolvers, Docker's
    /// chains. Cheap (a few dumps) and idempotent; call it every few seconds. A route that came to overlap the subnet is an
    /// error after everything else is repaired.
    pub fn ensure_host_rules(&self) -> Result<(), NetError> {
        if enable_forwarding()? {
            tracing::warn!(
                "packet forwarding was turned off; turned on again because sandboxes need it ({IP_FORWARD})"
            );
        }
        let mut state = self.state();
        let routes = HostRoutes::read(&mut state.route)?;
        let (uplinks, resolvers) = (routes.uplinks(), Resolvers::of_host(self.config.dns.as_deref()));
        let changed = uplinks != state.uplinks || resolvers != state.resolvers;
        (state.uplinks, state.resolvers) = (uplinks, resolvers);
        let found = nft::rules(&mut state.nft, nft::Family::Inet, &self.table)
            .map_err(NetError::kernel(format!("read the nftables table inet {}", self.table)))?;
        let damaged = found.len() != self.rule_set(&state).rule_count();
        if damaged {
            tracing::warn!("the nftables table inet {} was changed or removed; restored", self.table);
        }
        if damaged || changed {
            self.rule_set(&state).install(&mut open_nft()?)?;
        }
        docker::ensure(&mut state.nft, &self.table, &self.link_prefix)?;
        self.claim_subnet(&mut state, &routes)?;
        self.check_subnet(&routes)
    }

    fn check_subnet(&self, host: &HostRoutes) -> Result<(), NetError> {
        let own_link = |r: &link::Route| host.links_of(r).any(|l| l.starts_with(&self.link_prefix));
        subnet::check_free(self.subnet, &host.routes, |r| self.is_claim(r) || own_link(r))
    }

    fn claim_subnet(&self, state: &mut State, host: &HostRoutes) -> Result<(), NetError> {
        if host.routes.iter().any(|r| self.is_claim(r)) {
            return Ok(());
        }
        let mut batch = Batch::new();
        link::claim_subnet(&mut batch, self.subnet.pair(), self.owner(), true);
        state.route.transact(&batch).map(drop).map_err(NetError::kernel("claim the sandbox subnet"))
    }

    fn is_claim(&self, r: &link::Route) -> bool {
        r.ours && !r.unicast && r.metric == self.owner() && (r.network, r.prefix) == self.subnet.pair()
    }

    /// Removes the table and everything else of ours when no sandbox is plugged any more; answers whether it did.
    /// Forwarding stays on: others may rely on it by now.
    pub fn close(&self) -> Result<bool, NetError> {
        let mut state = self.state();
        let links = link::list(&mut state.route).map_err(NetError::kernel("list network links"))?;
        if !state.slots.is_empty() || links.values().any(|l| slot_of_link(&self.link_prefix, l).is_some()) {
            return Ok(false);
        }
        docker::remove(&mut state.nft, &self.table)?;
        let mut change = nft::Change::new(nft::Family::Inet, &self.table);
        change.delete_table();
        ignore(change.commit(&mut state.nft), ENOENT)
            .map_err(NetError::kernel(format!("remove the nftables table inet {}", self.table)))?;
        let mut batch = Batch::new();
        link::claim_subnet(&mut batch, self.subnet.pair(), self.owner(), false);
        ignore(state.route.transact(&batch).map(drop), ESRCH)
            .map_err(NetError::kernel("release the sandbox subnet"))?;
        Ok(true)
    }

    fn rule_set<'a>(&'a self, state: &'a State) -> RuleSet<'a> {
        RuleSet {
            table: &self.table,
            link_prefix: &self.link_prefix,
            subnet: self.subnet,
            resolvers: &state.resolvers,
            uplinks: &state.uplinks,
            slots: &state.slots,
        }
    }

    fn link_name(&self, slot: u32) -> String {
        format!("{}{slot}", self.link_prefix)
    }

    /// A number made of the tag; the metric of our subnet route.
    fn owner(&self) -> u32 {
        self.config.tag.bytes().fold(0, |number, byte| (number << 8) | u32::from(byte))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one assignment after its effect: a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the host leaves this subnet to sandboxes (or a server here has it already); answers how many it holds.
pub(crate) fn check_subnet(pair: (Ipv4Addr, u8)) -> Result<u32, NetError> {
    let subnet = Subnet::new(pair)?;
    let mut socket = Socket::open(Protocol::Route).map_err(NetError::io("open a route netlink socket"))?;
    subnet::check_free(subnet, &HostRoutes::read(&mut socket)?.routes, |r| r.ours)?;
    Ok(subnet.slots_max().min(SLOTS_MAX))
}

/// Others on this host who filter forwarded packets.
#[derive(Debug)]
pub(crate) struct Neighbours {
    /// Chain of iptables-nft in which our links are accepted.
    pub forward_chain: Option<String>,
    pub legacy_iptables: bool,
    pub firewalld: bool,
    /// (family and table, chain) of other programs that drop forwarded packets they do not know.
    pub closed: Vec<(String, String)>,
}

impl Neighbours {
    pub(crate) fn find() -> Result<Self, NetError> {
        let mut socket = open_nft()?;
        let mut chains = |family| nft::chains(&mut socket, family).map_err(NetError::kernel("list nftables chains"));
        let (inet, ip) = (chains(nft::Family::Inet)?, chains(nft::Family::Ip)?);
        let drops = |c: &nft::FoundChain| c.forward && c.policy_drop;
        let closed = inet.iter().filter(|c| drops(c)).map(|c| (format!("inet {}", c.table), c.name.clone()));
        let ip = ip.iter().filter(|c| drops(c) && c.table != docker::TABLE);
        let closed = closed.chain(ip.map(|c| (format!("ip {}", c.table), c.name.clone()))).collect();
        let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        Ok(Self {
            forward_chain: docker::target(&mut socket)?,
            legacy_iptables: legacy.lines().any(|table| table == "filter"),
            firewalld: inet.iter().any(|c| c.table == "firewalld"),
            closed,
        })
    }
}

/// What the host's routing tables say now.
struct HostRoutes {
    routes: Vec<link::Route>,
    links: HashMap<i32, String>,
}

impl HostRoutes {
    fn read(socket: &mut Socket) -> Result<Self, NetError> {
        let mut routes = link::routes(socket).map_err(NetError::kernel("list routes"))?;
        let links = link::list(socket).map_err(NetError::kernel("list network links"))?;
        // A link that went between the two lists, as those of ended sandboxes do, took its routes with it.
        routes.retain(|r| r.links.is_empty() || r.links.iter().any(|index| links.contains_key(index)));
        Ok(Self { routes, links })
    }

    fn links_of(&self, route: &link::Route) -> impl Iterator<Item = &String> {
        route.links.iter().filter_map(|index| self.links.get(index))
    }

    /// Links that carry a default route: the only ones sandboxes may leave by.
    fn uplinks(&self) -> BTreeSet<String> {
        let default = self.routes.iter().filter(|r| r.unicast && r.prefix <= subnet::DEFAULT_ROUTE_PREFIX_MAX);
        default.flat_map(|r| self.links_of(r).cloned()).collect()
    }
}

const ESRCH: i32 = 3;
const HOST_END: u8 = 0x51;
const INNER_END: u8 = 0x52;

/// A locally administered address; each veth is its own wire, so servers may share them.
fn mac(slot: u32, end: u8) -> link::Mac {
    let [a, b, c, d] = slot.to_be_bytes();
    [0x02, end, a, b, c, d]
}

/// The slot of one of our links.
fn slot_of_link(link_prefix: &str, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(link_prefix)?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

fn open_nft() -> Result<Socket, NetError> {
    Socket::open(Protocol::Netfilter).map_err(NetError::io("open a netfilter netlink socket"))
}

/// Success when the kernel refused with exactly this error.
fn ignore(result: Result<(), NetlinkError>, errno: i32) -> Result<(), NetlinkError> {
    match result {
        Err(e) if e.errno() == Some(errno) => Ok(()),
        other => other,
    }
}

/// Deletes links by name; absent ones are fine.
fn delete_links(socket: &mut Socket, names: &[&str]) -> Result<(), NetlinkError> {
    for name in names {
        let Some(index) = link::index_of(socket, name)? else { continue };
        let mut batch = Batch::new();
        link::delete(&mut batch, index);
        ignore(socket.transact(&batch).map(drop), ENODEV)?;
    }
    Ok(())
}

/// Turns IPv4 forwarding on; true when it was off.
fn enable_forwarding() -> Result<bool, NetError> {
    let on = |e: io::Result<String>| e.map(|text| text.trim() == "1");
    if on(fs::read_to_string(IP_FORWARD)).map_err(NetError::io(format!("read {IP_FORWARD}")))? {
        return Ok(false);
    }
    fs::write(IP_FORWARD, "1").map_err(NetError::io(format!("turn on packet forwarding ({IP_FORWARD})")))?;
    Ok(true)
}
