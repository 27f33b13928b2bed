//! Certificates that are replaced while hotring runs, and listeners that another process takes.

use super::support::authority::{Authority, Dialer, Issued, in_file, shown};
use super::support::{Client, Redis, Site, eventually, pool};
use super::{LISTEN, server, tls};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Puts other certificates in the place of these, in one step each.
fn replace(here: &Issued, with: &Issued) {
    for (old, new) in [(&here.cert, &with.cert), (&here.key, &with.key)] {
        let beside = format!("{old}.new");
        fs::copy(new, &beside).unwrap();
        fs::rename(&beside, old).unwrap();
    }
}

#[test]
fn a_new_certificate_is_for_new_connections_and_no_old_one_is_lost() {
    let ca = Authority::new();
    let (own, next) = (ca.local("first"), ca.local("second"));
    let first = in_file(&own.cert);
    let redis = Redis::start(&[]);
    let keys = ["listen: 127.0.0.1:0", LISTEN, &tls(&own, ""), "^watch: 100ms", "^workers: 2"];
    let site = Site::new(&pool(&[redis.address()], &keys));
    let address = site.hotring.address(1).to_owned();
    let client = ca.client();
    let over = AtomicBool::new(false);
    let mut old = client.app(&address);
    assert_eq!(shown(&old), first);
    std::thread::scope(|scope| {
        // Some go on, and some come and go.
        let loads: Vec<_> = (0..4)
            .map(|number| {
                let (client, address, over) = (client.clone(), address.clone(), &over);
                scope.spawn(move || {
                    let mut app: Client = client.app(&address);
                    let mut asked = 0_u64;
                    while !over.load(Ordering::Relaxed) {
                        asked += 1;
                        assert_eq!(app.ask(&format!("SET n{number} {asked}")), "+OK\r\n");
                        if number >= 2 {
                            app = client.app(&address);
                        }
                    }
                    asked
                })
            })
            .collect();
        replace(&own, &next);
        eventually("the new one is shown", || shown(&client.app(&address)) == in_file(&next.cert));
        over.store(true, Ordering::Relaxed);
        for load in loads {
            assert!(load.join().unwrap() > 0);
        }
    });
    assert_eq!(old.ask("PING"), "+PONG\r\n");
    assert_eq!(site.hotring.metric("hotring_client_tls_handshake_failures_total{pool=\"main\",why=\"protocol\"}"), 0.0);
}

#[test]
fn a_secret_of_kubernetes_is_followed_and_a_bad_one_is_not() {
    let ca = Authority::new();
    let (first, second) = (ca.local("first"), ca.local("second"));
    let redis = Redis::start(&[]);
    // As the kubelet does: the files are links into a directory that is a link, which is replaced in one step.
    let volume = &ca.dir.0;
    let publish = |name: &str, cert: &str, key: &str| {
        let data = volume.join(name);
        fs::create_dir(&data).unwrap();
        fs::copy(cert, data.join("tls.crt")).unwrap();
        fs::copy(key, data.join("tls.key")).unwrap();
        symlink(name, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    publish("..1", &first.cert, &first.key);
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
    }
    let file = |name: &str| volume.join(name).display().to_string();
    let own = Issued { cert: file("tls.crt"), key: file("tls.key") };
    let keys = ["listen: 127.0.0.1:0", LISTEN, &tls(&own, ""), "^watch: 100ms"];
    let site = Site::new(&pool(&[redis.address()], &keys));
    let address = site.hotring.address(1).to_owned();
    let client = ca.client();
    let seen = || shown(&client.app(&address));
    assert_eq!(seen(), in_file(&first.cert));
    let expires = format!("hotring_tls_certificate_expires_timestamp_seconds{{pool=\"main\",file=\"{}\"}}", own.cert);
    eventually("when it expires is told", || site.hotring.metric(&expires) > 1.7e9);
    // A key that is another certificate's.
    publish("..2", &second.cert, &first.key);
    eventually("it is refused", || site.hotring.metric("hotring_config_refused") == 1.0);
    assert_eq!(seen(), in_file(&first.cert));
    let (status, told) = site.hotring.ask_admin("POST", "/reload", "");
    assert_ne!(status, 200);
    assert!(told.contains("main.tls.key: it is not the key of the certificate"), "{told}");
    let no_pem = ca.dir.write("none", "this is none\n");
    publish("..3", &no_pem, &second.key);
    let (status, told) = site.hotring.ask_admin("POST", "/reload", "");
    assert_ne!(status, 200);
    assert!(told.contains("main.tls.cert: there is no certificate in it"), "{told}");
    assert_eq!(seen(), in_file(&first.cert));
    publish("..4", &second.cert, &second.key);
    eventually("the good one is taken", || seen() == in_file(&second.cert));
    eventually("nothing is refused any more", || site.hotring.metric("hotring_config_refused") == 0.0);
}

#[test]
fn another_ca_of_the_servers_is_for_new_connections() {
    let (ca, other) = (Authority::new(), Authority::new());
    let own = ca.local("redis");
    let (mut redis, at) = server(&ca, &own, &[]);
    let believed = ca.dir.file("believed.crt");
    fs::copy(ca.ca(), &believed).unwrap();
    let keys = [&*format!("server_tls: {{ca: {believed}}}"), "^watch: off", "connect_timeout: 5s"];
    let site = Site::new(&pool(&[at], &keys));
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    fs::copy(other.ca(), &believed).unwrap();
    let (status, told) = site.hotring.ask_admin("POST", "/reload", "");
    assert_eq!(status, 200, "{told}");
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n", "what is open goes on");
    redis.restart();
    eventually("the server is not believed any more", || {
        app.ask("GET k").contains("its certificate was issued by an unknown CA")
    });
    fs::copy(ca.ca(), &believed).unwrap();
    assert_eq!(site.hotring.ask_admin("POST", "/reload", "").0, 200);
    eventually("it is again", || app.ask("GET k") == "$-1\r\n");
}

#[test]
fn tls_to_servers_can_be_begun_and_ended_by_a_reload() {
    let ca = Authority::new();
    let own = ca.local("redis");
    let plain = super::support::free_port();
    let (redis, at) = server(&ca, &own, &[]);
    assert_eq!(redis.client().ask(&format!("CONFIG SET port {plain}")), "+OK\r\n");
    let text = |at: &str, more: &str| pool(&[at], &["listen: 127.0.0.1:0", more]);
    let plain = format!("127.0.0.1:{plain}");
    let site = Site::new(&text(&plain, "db: 0"));
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    let tls = format!("server_tls: {{ca: {}}}", ca.ca());
    for round in 0..2 {
        assert_eq!(site.reload(&text(&at, &tls)).0, 200);
        let shaken = "hotring_server_tls_handshakes_total{pool=\"main\"}";
        eventually("it is asked over TLS", || {
            app.ask("GET k") == "$1\r\nv\r\n" && site.hotring.metric(shaken) > f64::from(round)
        });
        assert_eq!(site.reload(&text(&plain, "db: 0")).0, 200);
        eventually("it is asked plainly", || app.ask("GET k") == "$1\r\nv\r\n");
    }
}

#[test]
fn listeners_come_go_and_are_handed_over() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let redis = Redis::start(&[]);
    let (port, plain) = (super::support::free_port(), super::support::free_port());
    let handover = format!("^handover: {}", ca.dir.file("handover.sock"));
    let listen = format!("listen_tls: 127.0.0.1:{port}");
    let plain = format!("listen: 127.0.0.1:{plain}");
    let text = pool(&[redis.address()], &[&plain, &listen, &tls(&own, ""), &handover, "^drain: {timeout: 60s}"]);
    let address = format!("127.0.0.1:{port}");
    let old = Site::new(&text);
    let mut app = ca.client().app(&address);
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    let new = Site::new(&text);
    // Whoever of the two lets them in, nobody is refused; the old process ends what it has, and with it who came just then.
    drop(Client::connect(&address));
    drop(old);
    assert_eq!(app.rest(), b"", "the old process has told the end");
    let mut next = ca.client().app(&address);
    assert_eq!(next.ask("GET k"), "$1\r\nv\r\n");
    eventually("the new one has let it in", || {
        new.hotring.metric("hotring_client_tls_handshakes_total{pool=\"main\"}") >= 1.0
    });
    // Without it nobody listens there any more; as a plain one it is that at once.
    let without = pool(&[redis.address()], &[&plain, &handover]);
    assert_eq!(new.reload(&without).0, 200);
    // Who starts a program at the same time has the socket until that runs.
    eventually("it is closed", || Client::try_connect(&address).is_err());
    let other = pool(
        &[redis.address()],
        &[&format!("listen: [{}, \"{address}\"]", plain.split_once(' ').unwrap().1), &handover],
    );
    let (status, told) = new.reload(&other);
    assert_eq!(status, 200, "{told}");
    assert_eq!(Client::connect(&address).ask("GET k"), "$1\r\nv\r\n");
    let (status, told) = new.reload(&text);
    assert_eq!(status, 200, "{told}");
    assert_eq!(ca.client().app(&address).ask("GET k"), "$1\r\nv\r\n");
}

/// Whether the handshake was a whole one.
fn is_whole(app: &Client) -> bool {
    app.tls().handshake_kind() != Some(HandshakeKind::Resumed)
}

#[test]
fn who_comes_back_is_shown_a_new_certificate_all_the_same() {
    let ca = Authority::new();
    let (own, next) = (ca.local("first"), ca.local("second"));
    let first = in_file(&own.cert);
    let redis = Redis::start(&[]);
    let site = Site::new(&pool(&[redis.address()], &["listen: 127.0.0.1:0", LISTEN, &tls(&own, ""), "^watch: off"]));
    let clients = [&TLS12, &TLS13].map(|version| Dialer::believing(&ca.ca(), None, &[version]));
    let come = |client: &Dialer| {
        let mut app = client.app(site.hotring.address(1));
        // A ticket comes with the first reply, if not before.
        assert_eq!(app.ask("PING"), "+PONG\r\n");
        (is_whole(&app), shown(&app))
    };
    for client in &clients {
        assert_eq!(come(client), (true, first.clone()));
        assert_eq!(come(client), (false, first.clone()), "it need not be asked again");
    }
    replace(&own, &next);
    assert_eq!(site.hotring.ask_admin("POST", "/reload", "").0, 200);
    for client in &clients {
        assert_eq!(come(client), (true, in_file(&next.cert)));
    }
}

#[test]
fn who_comes_back_shows_its_certificate_again_and_is_not_let_in_with_one_that_is_not_good_any_more() {
    let (ca, other) = (Authority::new(), Authority::new());
    let (own, app) = (ca.local("hotring"), ca.issue("app", &["DNS:app"]));
    let believed = ca.dir.file("believed.crt");
    let redis = Redis::start(&[]);
    for auth in ["required", "optional"] {
        fs::copy(ca.ca(), &believed).unwrap();
        let tls = tls(&own, &format!(", client_ca: {believed}, client_auth: {auth}"));
        let site = Site::new(&pool(&[redis.address()], &["listen: 127.0.0.1:0", LISTEN, &tls, "^watch: off"]));
        let clients = [&TLS12, &TLS13].map(|version| Dialer::believing(&ca.ca(), Some(&app), &[version]));
        // Whether the handshake was a whole one; nothing, if it was not let in.
        let come = |client: &Dialer| {
            let mut app = client.app_as(site.hotring.address(1), "127.0.0.1").ok()?;
            let told = app.try_ask("PING").ok()?;
            assert_eq!(told, "+PONG\r\n");
            Some(is_whole(&app))
        };
        for client in &clients {
            assert_eq!([come(client), come(client), come(client)], [Some(true); 3], "{auth}");
        }
        fs::copy(other.ca(), &believed).unwrap();
        assert_eq!(site.hotring.ask_admin("POST", "/reload", "").0, 200);
        for client in &clients {
            assert_eq!([come(client), come(client)], [None; 2], "{auth}");
        }
    }
}
