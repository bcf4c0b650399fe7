//! Living beside Docker (and others who filter forwarded packets by iptables): their `FORWARD` chain drops what they do not
//! know, and an accept in our table does not override a drop in theirs. So our links are accepted at the head of
//! `DOCKER-USER`, the chain Docker leaves to others, else of a `FORWARD` chain whose policy is drop.
//!
//! The rules are written as iptables-nft itself writes them, or `iptables -L` (and with it dockerd) would refuse the table.
//! Our own table has judged the packets by then; rules of legacy iptables cannot be reached from here, the doctor tells.

use super::{
    error::NetError,
    nft::{self, Change, Expr, Family, FoundRule},
};
use infield_sys::netlink::Socket;

/// Of the family ip: where iptables-nft keeps its rules.
pub const TABLE: &str = "filter";
const RULES_PER_SERVER: usize = 2;

/// Makes the accept rules exist where they are needed. Cheap when they do.
pub fn ensure(socket: &mut Socket, comment: &str, link_prefix: &str) -> Result<(), NetError> {
    let Some(chain) = target(socket)? else { return Ok(()) };
    let mine: Vec<_> = own_rules(socket, comment)?.into_iter().filter(|r| r.chain == chain).collect();
    if mine.len() == RULES_PER_SERVER {
        return Ok(());
    }
    let mut change = Change::new(Family::Ip, TABLE);
    mine.iter().for_each(|r| change.delete_rule(&r.chain, r.handle));
    let accept = |direction| vec![direction, Expr::Counter, Expr::Accept];
    change.insert_rule(&chain, &accept(Expr::OifPrefix(link_prefix.to_owned())), comment);
    change.insert_rule(&chain, &accept(Expr::IifPrefix(link_prefix.to_owned())), comment);
    change
        .commit(socket)
        .map_err(NetError::kernel(format!("accept sandbox links in chain {chain} of table ip {TABLE}")))
}

pub fn remove(socket: &mut Socket, comment: &str) -> Result<(), NetError> {
    let mine = own_rules(socket, comment)?;
    if mine.is_empty() {
        return Ok(());
    }
    let mut change = Change::new(Family::Ip, TABLE);
    mine.iter().for_each(|r| change.delete_rule(&r.chain, r.handle));
    change.commit(socket).map_err(NetError::kernel(format!("remove our rules from table ip {TABLE}")))
}

/// The chain that needs our rules, if any.
pub fn target(socket: &mut Socket) -> Result<Option<String>, NetError> {
    let chains = nft::chains(socket, Family::Ip).map_err(NetError::kernel("look for Docker's packet rules"))?;
    let of_filter = || chains.iter().filter(|c| c.table == TABLE);
    let docker = of_filter().find(|c| c.name == "DOCKER-USER");
    let closed = || of_filter().find(|c| c.name == "FORWARD" && c.policy_drop);
    Ok(docker.or_else(closed).map(|c| c.name.clone()))
}

fn own_rules(socket: &mut Socket, comment: &str) -> Result<Vec<FoundRule>, NetError> {
    let rules =
        nft::rules(socket, Family::Ip, TABLE).map_err(NetError::kernel("read the packet rules of table ip filter"))?;
    Ok(rules.into_iter().filter(|r| r.comment.as_deref() == Some(comment)).collect())
}
