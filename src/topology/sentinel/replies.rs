//! What sentinels and servers say, read.
//!
//! Promises: nothing that is read here is trusted further than its form goes; lists have bounds. Does not promise that it is
//! true: who is believed is decided in [`super::votes`].

use crate::resp::control::Control;
use crate::topology::talk::one_line;
use crate::units::Address;

/// Replicas and other sentinels that are taken from one reply, at most.
pub const MOST: usize = 64;
/// What SENTINEL answers for a name that it does not watch over.
const NO_SUCH_NAME: &str = "ERR No such master";

/// Another sentinel, as one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its own id, the same wherever it is.
    pub id: String,
    /// Where it says that it is.
    pub address: Address,
}

/// What a server says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A master: it may be written to.
    Primary,
    /// A replica, or what else is none.
    Other(String),
}

/// Whether it says that it does not watch over the name.
#[must_use]
pub fn is_unknown_name(reply: &Control) -> bool {
    match reply {
        Control::Error(text) => text.starts_with(NO_SUCH_NAME),
        Control::Null => true,
        _ => false,
    }
}

/// Where the primary is, as SENTINEL GET-MASTER-ADDR-BY-NAME says it.
#[must_use]
pub fn primary(reply: &Control) -> Option<Address> {
    match items(reply) {
        [host, port] => address(text(host)?, text(port)?),
        _ => None,
    }
}

/// The epoch of what it knows, as SENTINEL MASTER says it: it grows with each failover.
#[must_use]
pub fn epoch(reply: &Control) -> Option<u64> {
    field(reply, "config-epoch")?.parse().ok()
}

/// The replicas that are well, as SENTINEL REPLICAS says it, in a stable order.
#[must_use]
pub fn replicas(reply: &Control) -> Vec<Address> {
    let mut found: Vec<Address> = items(reply).iter().take(MOST).filter_map(replica).collect();
    found.sort_by_cached_key(Address::to_string);
    found.dedup();
    found
}

/// The other sentinels, as SENTINEL SENTINELS says it.
#[must_use]
pub fn peers(reply: &Control) -> Vec<Peer> {
    let peer = |reply: &Control| {
        let id = field(reply, "runid")?.to_owned();
        Some(Peer { id, address: address(field(reply, "ip")?, field(reply, "port")?)? })
    };
    items(reply).iter().take(MOST).filter_map(peer).collect()
}

/// Its own id, as SENTINEL MYID says it; those before Redis 6.2 do not.
#[must_use]
pub fn id(reply: &Control) -> Option<String> {
    text(reply).filter(|id| !id.is_empty()).map(str::to_owned)
}

/// What a server says to ROLE.
///
/// # Errors
/// What it said instead.
pub fn role(reply: &Control) -> Result<Role, String> {
    if let Control::Error(text) = reply {
        return Err(one_line(text));
    }
    match items(reply).first().and_then(text) {
        Some("master") => Ok(Role::Primary),
        Some(role) => Ok(Role::Other(one_line(role))),
        None => Err("not a Redis server".into()),
    }
}

/// The channel of a message that a subscription brings; none where it is an answer to SUBSCRIBE or PING.
#[must_use]
pub fn news(reply: &Control) -> Option<&str> {
    match items(reply) {
        [kind, channel, _] if text(kind) == Some("message") => text(channel),
        _ => None,
    }
}

/// Where a replica is, if it can be read from.
fn replica(reply: &Control) -> Option<Address> {
    let is_well = !field(reply, "flags")?.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"));
    let follows = field(reply, "master-link-status")? == "ok";
    (is_well && follows).then(|| address(field(reply, "ip")?, field(reply, "port")?))?
}

/// The value of a field in a list of names and values.
fn field<'a>(reply: &'a Control, name: &str) -> Option<&'a str> {
    let pair = items(reply).chunks_exact(2).find(|pair| pair.first().and_then(text) == Some(name));
    text(pair?.get(1)?)
}

fn items(reply: &Control) -> &[Control] {
    match reply {
        Control::Array(items) => items,
        _ => &[],
    }
}

fn text(reply: &Control) -> Option<&str> {
    match reply {
        Control::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// A host may be a name, where sentinels are told to announce names.
fn address(host: &str, port: &str) -> Option<Address> {
    let written = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    written.parse().ok().filter(|address| !matches!(address, Address::Tcp { port: 0, .. } | Address::Unix { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::control;

    /// As Redis 7.0.15 words it; the lines' ends are added.
    fn recorded(text: &str) -> Control {
        said(&text.split_whitespace().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect::<Vec<u8>>())
    }

    fn said(bytes: &[u8]) -> Control {
        control::parse(bytes).unwrap().unwrap().0
    }

    const MASTER: &str = "*40 $4 name $3 one $2 ip $9 127.0.0.1 $4 port $4 7999 $5 runid $40
        d32f5f6b4c9c0d914741da519d2d30f1fbcbef06 $5 flags $6 master $21 link-pending-commands $1 0 $13 link-refcount $1 1
        $14 last-ping-sent $1 0 $18 last-ok-ping-reply $3 896 $15 last-ping-reply $3 896 $23 down-after-milliseconds $5
        30000 $12 info-refresh $4 2998 $13 role-reported $6 master $18 role-reported-time $4 3003 $12 config-epoch $2 17
        $10 num-slaves $1 1 $19 num-other-sentinels $1 0 $6 quorum $1 1 $16 failover-timeout $6 180000 $14 parallel-syncs
        $1 1";
    const REPLICA: &str = "*42 $4 name $14 127.0.0.1:7998 $2 ip $9 127.0.0.1 $4 port $4 7998 $5 runid $40
        ce014fb1ecb61685fe0721caae1ed4f654e21c6e $5 flags $5 slave $21 link-pending-commands $1 0 $13 link-refcount $1 1
        $14 last-ping-sent $1 0 $18 last-ok-ping-reply $3 895 $15 last-ping-reply $3 895 $23 down-after-milliseconds $5
        30000 $12 info-refresh $3 895 $13 role-reported $5 slave $18 role-reported-time $4 2999 $21 master-link-down-time
        $1 0 $18 master-link-status $2 ok $11 master-host $9 127.0.0.1 $11 master-port $4 7999 $14 slave-priority $3 100
        $17 slave-repl-offset $1 1 $17 replica-announced $1 1";
    const PEER: &str = "*28 $4 name $40 bb0c85e3a3e5e858da006f54901079482daa5c8d $2 ip $3 ::1 $4 port $5 26379 $5 runid $40
        bb0c85e3a3e5e858da006f54901079482daa5c8d $5 flags $8 sentinel $21 link-pending-commands $1 0 $13 link-refcount $1
        1 $14 last-ping-sent $1 0 $18 last-ok-ping-reply $3 895 $15 last-ping-reply $3 895 $23 down-after-milliseconds $5
        30000 $18 last-hello-message $3 226 $12 voted-leader $1 ? $18 voted-leader-epoch $1 0";

    fn at(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn where_the_primary_is() {
        assert_eq!(primary(&recorded("*2 $9 127.0.0.1 $4 7999")), Some(at("127.0.0.1:7999")));
        assert_eq!(primary(&recorded("*2 $7 redis-0 $4 7999")), Some(at("redis-0:7999")));
        assert_eq!(primary(&recorded("*2 $3 ::1 $4 7999")), Some(at("[::1]:7999")));
        for wrong in ["*-1", "*2 $9 127.0.0.1 $1 0", "*2 $9 127.0.0.1 $5 70000", "*1 $9 127.0.0.1", "+OK", "*2 $-1 $-1"]
        {
            assert_eq!(primary(&recorded(wrong)), None, "{wrong}");
        }
        assert_eq!(epoch(&recorded(MASTER)), Some(17));
        assert_eq!(epoch(&recorded("*2 $4 name $3 one")), None);
    }

    #[test]
    fn names_that_are_not_watched_over() {
        assert!(
            is_unknown_name(&said(b"-ERR No such master with that name\r\n")) && is_unknown_name(&said(b"*-1\r\n"))
        );
        assert!(!is_unknown_name(&said(b"-NOAUTH Authentication required.\r\n")) && !is_unknown_name(&said(b"*0\r\n")));
    }

    #[test]
    fn replicas_that_are_well() {
        let list = |one: &str| recorded(&format!("*1 {one}"));
        assert_eq!(replicas(&list(REPLICA)), [at("127.0.0.1:7998")]);
        assert!(replicas(&list(&REPLICA.replace("$2 ok", "$3 err"))).is_empty());
        assert!(replicas(&list(&REPLICA.replace("$5 slave $21", "$12 s_down,slave $21"))).is_empty());
        assert!(replicas(&said(b"*0\r\n")).is_empty() && replicas(&said(b"-ERR no\r\n")).is_empty());
        let many = format!(
            "*200 {}",
            (1000..1200).map(|port| REPLICA.replace("7998", &format!("{port}")) + " ").collect::<String>()
        );
        assert_eq!(replicas(&recorded(&many)).len(), MOST);
    }

    #[test]
    fn other_sentinels() {
        let id = "bb0c85e3a3e5e858da006f54901079482daa5c8d".to_owned();
        let reply = recorded(&format!("*1 {PEER}"));
        assert_eq!(peers(&reply), [Peer { id: id.clone(), address: at("[::1]:26379") }]);
        assert_eq!(super::id(&recorded(&format!("$40 {id}"))), Some(id));
        assert_eq!(super::id(&said(b"-ERR unknown subcommand\r\n")), None);
    }

    #[test]
    fn roles() {
        assert_eq!(role(&recorded("*3 $6 master :151 *0")), Ok(Role::Primary));
        let replica = recorded("*5 $5 slave $9 127.0.0.1 :7999 $9 handshake :-1");
        assert_eq!(role(&replica), Ok(Role::Other("slave".into())));
        assert_eq!(
            role(&said(b"-NOPERM this user has no permissions\r\n")),
            Err("NOPERM this user has no permissions".into())
        );
        assert!(role(&said(b"+PONG\r\n")).is_err() && role(&said(b"*0\r\n")).is_err());
    }

    #[test]
    fn what_subscriptions_bring() {
        assert_eq!(news(&recorded("*3 $7 message $14 +switch-master $3 one")), Some("+switch-master"));
        assert_eq!(news(&recorded("*3 $9 subscribe $14 +switch-master :1")), None);
        assert_eq!(news(&said(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")), None);
    }
}
