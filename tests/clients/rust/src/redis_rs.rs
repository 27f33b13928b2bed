//! redis-rs, with its blocking connection.

use crate::{PATIENCE, Site, apart, check};
use redis::{Client, Commands, Connection, ErrorKind, Pipeline, Value};
use std::collections::{BTreeMap, BTreeSet};

/// `query` is what stands behind the address.
pub(crate) fn checks(site: &Site, name: &str, query: &str) {
    let connect_to = |db: &str| -> Connection {
        let url = format!("redis://{}:{}/{db}{query}", site.host, site.port);
        let connection = Client::open(url).expect("an address").get_connection().expect("a connection");
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        connection
    };
    let connect = || connect_to("");
    let key = |text: &str| format!("{name}:{text}");
    let tagged = |text: &str| format!("{{{name}}}:{text}");

    check(name, "pipeline", || {
        let mut pipe = Pipeline::new();
        for n in 0..300 {
            pipe.set(key(&format!("p:{n}")), n).ignore().get(key(&format!("p:{n}")));
        }
        let replies: Vec<u32> = pipe.query(&mut connect()).unwrap();
        assert_eq!(replies, (0..300).collect::<Vec<u32>>());
        let mut c = connect();
        let _: () = c.hset_multiple(key("h"), &[("a", 1), ("b", 2)]).unwrap();
        let hash: BTreeMap<String, u32> = c.hgetall(key("h")).unwrap();
        assert_eq!(hash, BTreeMap::from([("a".into(), 1), ("b".into(), 2)]));
    });
    check(name, "transaction on one tag", || {
        let mut pipe = redis::pipe();
        pipe.atomic().set(tagged("a"), 1).incr(tagged("b"), 1).get(tagged("a"));
        assert_eq!(pipe.query::<(String, u32, u32)>(&mut connect()).unwrap(), ("OK".into(), 1, 1));
    });
    check(name, "transaction over shards", || {
        let (keys, mut c, mut pipe) = (apart(name), connect(), redis::pipe());
        pipe.atomic();
        keys.iter().for_each(|one| _ = pipe.set(one, 1).ignore());
        let result = pipe.query::<()>(&mut c);
        if site.shards.len() == 1 {
            result.unwrap();
        } else {
            let told = format!("{:?}", result.unwrap_err());
            assert!(told.contains("CROSSSLOT") || told.contains("CrossSlot") || told.contains("ExecAbort"), "{told}");
            assert_eq!(c.mget::<_, Vec<Value>>(&keys).unwrap(), vec![Value::Nil; keys.len()]);
        }
        assert!(c.ping::<String>().unwrap() == "PONG");
    });
    check(name, "watch", || {
        let (mut c, mut other) = (connect(), connect());
        let mut tries = 0;
        let replies: (u32,) = redis::transaction(&mut c, &[tagged("w")], |c, pipe| {
            tries += 1;
            let old: Option<u32> = c.get(tagged("w"))?;
            if tries == 1 {
                let _: () = other.set(tagged("w"), 41)?;
            }
            pipe.set(tagged("w"), old.unwrap_or(0) + 1).ignore().get(tagged("w")).query(c)
        })
        .unwrap();
        assert_eq!((replies.0, tries), (42, 2));
    });
    check(name, "blocking pop", || {
        let (mut c, mut other) = (connect(), connect());
        let waiter = std::thread::spawn({
            let q = key("q");
            move || c.blpop::<_, (String, String)>(q, 0.0).unwrap()
        });
        site.until_blocked(1);
        let _: () = other.rpush(key("q"), "x").unwrap();
        assert_eq!(waiter.join().unwrap(), (key("q"), "x".into()));
    });
    check(name, "abandoned blocking pop", || {
        let (mut gone, mut c) = (connect(), connect());
        gone.send_packed_command(&redis::cmd("BLPOP").arg(key("abandoned")).arg(0).get_packed_command()).unwrap();
        site.until_blocked(1);
        drop(gone);
        site.until_blocked(0);
        assert_eq!(c.rpush::<_, _, u32>(key("abandoned"), "kept").unwrap(), 1);
        assert_eq!(c.lpop::<_, String>(key("abandoned"), None).unwrap(), "kept");
    });
    check(name, "pubsub", || {
        let (mut listener, mut c) = (connect(), connect());
        let mut listener = listener.as_pubsub();
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        listener.subscribe(key("news")).unwrap();
        listener.psubscribe(key("n*")).unwrap();
        assert_eq!(c.publish::<_, _, u32>(key("news"), "hello").unwrap(), 2);
        let mut heard = Vec::new();
        for _ in 0..2 {
            let message = listener.get_message().unwrap();
            assert_eq!(message.get_payload::<String>().unwrap(), "hello");
            assert_eq!(message.get_channel_name(), key("news"));
            heard.push(message.from_pattern());
        }
        heard.sort_unstable();
        assert_eq!(heard, [false, true]);
        listener.unsubscribe(key("news")).unwrap();
        listener.punsubscribe(key("n*")).unwrap();
        assert_eq!(c.publish::<_, _, u32>(key("news"), "nobody").unwrap(), 0);
    });
    check(name, "scripts", || {
        let mut c = connect();
        let script = redis::Script::new(&format!("-- {name}\nreturn redis.call('incrby', KEYS[1], ARGV[1])"));
        for (n, one) in apart(&key("script")).iter().enumerate() {
            assert_eq!(script.key(one).arg(n).invoke::<usize>(&mut c).unwrap(), n);
        }
        let error = redis::cmd("EVALSHA").arg("0".repeat(40)).arg(1).arg(key("e")).query::<()>(&mut c).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server(redis::ServerErrorKind::NoScript));
    });
    check(name, "scan", || {
        let mut c = connect();
        let keys: BTreeSet<String> = (0..1000).map(|n| key(&format!("scan:{n}"))).collect();
        let _: () = c.mset(&keys.iter().map(|one| (one, 1)).collect::<Vec<_>>()).unwrap();
        let found = c.scan_match::<_, String>(key("scan:*")).unwrap();
        assert_eq!(found.map(Result::unwrap).collect::<BTreeSet<_>>(), keys);
    });
    check(name, "many keys", || {
        let (mut c, keys) = (connect(), apart(&key("many")));
        let _: () = c.mset(&keys.iter().map(|one| (one, one)).collect::<Vec<_>>()).unwrap();
        assert_eq!(c.mget::<_, Vec<String>>(&keys).unwrap(), keys);
        assert_eq!(c.del::<_, usize>(&keys).unwrap(), keys.len());
        assert_eq!(c.mget::<_, Vec<Value>>(&keys).unwrap(), vec![Value::Nil; keys.len()]);
    });
    check(name, "databases", || {
        let (mut zero, mut one, keys) = (connect(), connect_to("1"), apart(&key("db")));
        keys.iter().for_each(|each| zero.set(each, "zero").unwrap());
        assert_eq!(one.mget::<_, Vec<Value>>(&keys).unwrap(), vec![Value::Nil; keys.len()]);
        keys.iter().for_each(|each| one.set(each, "one").unwrap());
        assert_eq!(zero.mget::<_, Vec<String>>(&keys).unwrap(), vec!["zero"; keys.len()]);
        let _: () = redis::cmd("FLUSHDB").query(&mut one).unwrap();
        assert_eq!(redis::cmd("DBSIZE").query::<usize>(&mut one).unwrap(), 0);
        assert_eq!(zero.get::<_, String>(&keys[0]).unwrap(), "zero");
    });
    check(name, "client and info", || {
        let (mut c, own) = (connect(), format!("name-of-{name}"));
        let _: () = redis::cmd("CLIENT").arg("SETNAME").arg(&own).query(&mut c).unwrap();
        assert_eq!(redis::cmd("CLIENT").arg("GETNAME").query::<String>(&mut c).unwrap(), own);
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut c).unwrap();
        assert!(list.contains(&format!(" name={own} ")), "{list}");
        let info: redis::InfoDict = redis::cmd("INFO").query(&mut c).unwrap();
        assert_eq!(info.get::<String>("role").as_deref(), Some("master"));
        assert!(info.get::<String>("redis_version").is_some());
    });
}
