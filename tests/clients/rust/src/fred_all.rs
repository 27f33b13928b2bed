//! fred, on a runtime of its own for each check.

use crate::{PATIENCE, Site, apart, check};
use fred::cmd;
use fred::prelude::*;
use fred::types::scripts::Script;
use fred::types::{MessageKind, RespVersion, Value};
use std::collections::BTreeSet;
use std::future::Future;

/// Runs a check to its end, or fails when that takes too long.
fn run(name: &str, title: &str, body: impl Future<Output = ()>) {
    check(name, title, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await.expect("no end") });
    });
}

pub(crate) fn checks(site: &Site, name: &str, resp3: bool) {
    let config = |db: u8| Config {
        server: ServerConfig::new_centralized(site.host.clone(), site.port),
        version: if resp3 { RespVersion::RESP3 } else { RespVersion::RESP2 },
        database: Some(db).filter(|&db| db > 0),
        ..Config::default()
    };
    let connect_to = async |db: u8| {
        let client = Builder::from_config(config(db)).build().unwrap();
        client.init().await.unwrap();
        client
    };
    let connect = async || connect_to(0).await;
    let key = |text: &str| format!("{name}:{text}");
    let tagged = |text: &str| format!("{{{name}}}:{text}");

    run(name, "pipeline", async {
        let pipe = connect().await.pipeline();
        for n in 0..300 {
            let _: () = pipe.set(key(&format!("p:{n}")), n, None, None, false).await.unwrap();
            let _: () = pipe.get(key(&format!("p:{n}"))).await.unwrap();
        }
        let replies: Vec<Value> = pipe.all().await.unwrap();
        let got: Vec<u32> = replies.iter().skip(1).step_by(2).map(|one| one.clone().convert().unwrap()).collect();
        assert_eq!(got, (0..300).collect::<Vec<u32>>());
    });
    run(name, "transaction on one tag", async {
        let multi = connect().await.multi();
        let _: () = multi.set(tagged("a"), 1, None, None, false).await.unwrap();
        let _: () = multi.incr(tagged("b")).await.unwrap();
        let _: () = multi.get(tagged("a")).await.unwrap();
        assert_eq!(multi.exec::<(String, u32, u32)>(true).await.unwrap(), ("OK".into(), 1, 1));
    });
    run(name, "transaction over shards", async {
        let (keys, client) = (apart(name), connect().await);
        let multi = client.multi();
        for one in &keys {
            let _: () = multi.set(one, 1, None, None, false).await.unwrap();
        }
        // The library sends all of it in the end.
        let result = multi.exec::<Vec<Value>>(true).await;
        if site.shards.len() == 1 {
            assert_eq!(result.unwrap().len(), keys.len());
        } else {
            let told = result.unwrap_err().to_string();
            assert!(told.contains("CROSSSLOT") || told.contains("EXECABORT"), "{told}");
            assert_eq!(client.mget::<Vec<Value>, _>(keys.clone()).await.unwrap(), vec![Value::Null; keys.len()]);
        }
        assert_eq!(client.ping::<String>(None).await.unwrap(), "PONG");
    });
    run(name, "watch", async {
        let (client, other) = (connect().await, connect().await);
        let _: () = client.watch(tagged("w")).await.unwrap();
        let _: () = other.set(tagged("w"), "other", None, None, false).await.unwrap();
        let multi = client.multi();
        let _: () = multi.set(tagged("w"), "mine", None, None, false).await.unwrap();
        assert_eq!(multi.exec::<Value>(true).await.unwrap(), Value::Null);
        assert_eq!(client.get::<String, _>(tagged("w")).await.unwrap(), "other");
    });
    run(name, "blocking pop", async {
        let (client, other) = (connect().await, connect().await);
        let waiting = tokio::spawn({
            let (client, q) = (client.clone(), key("q"));
            async move { client.blpop::<(String, String), _>(q, 0.0).await.unwrap() }
        });
        while site.blocked() != 1 {
            tokio::task::yield_now().await;
        }
        let _: () = other.rpush(key("q"), "x").await.unwrap();
        assert_eq!(waiting.await.unwrap(), (key("q"), "x".into()));
    });
    run(name, "pubsub", async {
        let (listener, client) = (Builder::from_config(config(0)).build_subscriber_client().unwrap(), connect().await);
        listener.init().await.unwrap();
        let mut messages = listener.message_rx();
        let _: () = listener.subscribe(key("news")).await.unwrap();
        let _: () = listener.psubscribe(key("n*")).await.unwrap();
        // The library does not wait until the server has confirmed; what is published before may be missed.
        let mut kinds = Vec::new();
        while !(kinds.contains(&MessageKind::Message) && kinds.contains(&MessageKind::PMessage)) {
            let _: u32 = client.publish(key("news"), "hello").await.unwrap();
            while let Ok(message) = messages.try_recv() {
                assert_eq!(
                    (&*message.channel, message.value.as_str().unwrap().as_ref()),
                    (key("news").as_str(), "hello")
                );
                kinds.push(message.kind);
            }
        }
        let _: () = listener.unsubscribe(key("news")).await.unwrap();
        let _: () = listener.punsubscribe(key("n*")).await.unwrap();
        while client.publish::<u32, _, _>(key("news"), "nobody").await.unwrap() > 0 {}
    });
    run(name, "scripts", async {
        let client = connect().await;
        let script = Script::from_lua(format!("-- {name}\nreturn redis.call('incrby', KEYS[1], ARGV[1])"));
        script.load(&client).await.unwrap();
        for (n, one) in (0_u32..).zip(apart(&key("script"))) {
            assert_eq!(script.evalsha::<u32, _, _, _>(&client, one, n).await.unwrap(), n);
        }
    });
    run(name, "scan", async {
        let client = connect().await;
        let keys: BTreeSet<String> = (0..1000).map(|n| key(&format!("scan:{n}"))).collect();
        let _: () = client.mset(keys.iter().map(|one| (one.as_str(), 1)).collect::<Vec<_>>()).await.unwrap();
        let (mut cursor, mut found) = (String::from("0"), BTreeSet::new());
        loop {
            let page: (String, Vec<String>) = client.scan_page(cursor, key("scan:*"), Some(100), None).await.unwrap();
            found.extend(page.1);
            cursor = page.0;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(found, keys);
    });
    run(name, "many keys", async {
        let (client, keys) = (connect().await, apart(&key("many")));
        let _: () = client.mset(keys.iter().map(|one| (one.as_str(), one.as_str())).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(client.mget::<Vec<String>, _>(keys.clone()).await.unwrap(), keys);
        assert_eq!(client.del::<usize, _>(keys.clone()).await.unwrap(), keys.len());
        assert_eq!(client.mget::<Vec<Value>, _>(keys.clone()).await.unwrap(), vec![Value::Null; keys.len()]);
    });
    run(name, "databases", async {
        let (zero, one, keys) = (connect().await, connect_to(1).await, apart(&key("db")));
        for each in &keys {
            let _: () = zero.set(each, "zero", None, None, false).await.unwrap();
            assert_eq!(one.get::<Value, _>(each).await.unwrap(), Value::Null);
            let _: () = one.set(each, "one", None, None, false).await.unwrap();
            assert_eq!(zero.get::<String, _>(each).await.unwrap(), "zero");
        }
        let _: () = one.custom(cmd!("FLUSHDB"), Vec::<String>::new()).await.unwrap();
        assert_eq!(one.dbsize::<usize>().await.unwrap(), 0);
        assert_eq!(zero.get::<String, _>(&keys[0]).await.unwrap(), "zero");
    });
    run(name, "client and info", async {
        let (client, own) = (connect().await, format!("name-of-{name}"));
        client.client_setname(own.as_str()).await.unwrap();
        assert_eq!(client.client_getname::<String>().await.unwrap(), own);
        let list: String = client.client_list::<String, String>(None, None).await.unwrap();
        assert!(list.contains(&format!(" name={own} ")), "{list}");
        assert!(client.info::<String>(None).await.unwrap().contains("redis_version:"));
    });
}
