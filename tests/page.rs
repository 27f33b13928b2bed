//! The status page, in a real browser (headless Chromium, which `tests/setup` installs). Its pictures are written below `target/`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and tells what it has measured")]

#[path = "support/browser.rs"]
mod browser;
mod support;

use browser::Browser;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Client, Hotring, Scratch, Site, eventually, key_on, pool, shards};

const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 740);

/// A page that shows this hotring, and has shown its first answer.
fn opened(browser: &mut Browser, hotring: &Hotring, size: (u32, u32)) {
    browser.open(&format!("http://{}/", hotring.admin_at()), size);
    browser.until("!!document.getElementById('word') && document.getElementById('word').textContent !== 'Asking …'");
}

/// The word of state in the row of a shard, as an expression.
fn state(shard: &str) -> String {
    format!("([...document.querySelectorAll('tr[data-shard=\"{shard}\"] .state span')].map(s => s.textContent)[0])")
}

/// Nothing was complained of, and nobody else was asked for anything.
fn is_clean(browser: &mut Browser, hotring: &Hotring) {
    browser.value("1");
    assert_eq!(browser.complaints, [""; 0]);
    let own = format!("http://{}/", hotring.admin_at());
    let others = browser.requests.iter().filter(|address| !address.starts_with(&own) && !address.starts_with("data:"));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
}

/// The page is as wide as the window, and so is all in it.
fn fits(browser: &mut Browser) {
    let wide = browser.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]");
    assert_eq!(wide[0], wide[1], "it scrolls sideways");
}

/// Asks for a key again and again, until it is dropped.
struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Crowd {
    fn of(apps: usize, hotring: &Hotring, keys: impl Fn(usize) -> Vec<u8>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..apps).map(|n| {
            let (stop, mut app) = (Arc::clone(&stop), hotring.app());
            let wire = support::wire(&[b"GET".to_vec(), keys(n)]).repeat(20);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    app.send(&wire);
                    (0..20).for_each(|_| drop(app.reply()));
                }
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

#[test]
fn the_page_is_one_small_file_and_its_policy_is_of_what_stands_in_it() {
    let yaml = "pools:\n  main: {listen: '127.0.0.1:0', servers: embedded:1}\n";
    let hotring = Hotring::with_admin(yaml);
    let answer = hotring.raw_admin(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html,*/*\r\n\r\n");
    let answer = String::from_utf8(answer).unwrap();
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(page.len() < 60_000, "{}", page.len());
    for tag in ["script", "style"] {
        assert_eq!(page.matches(&format!("<{tag}")).count(), 1, "one {tag}");
        let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
        let hash = Sha256::digest(rest.split_once(&format!("</{tag}>")).unwrap().0);
        let hash = base64_of(&hash);
        assert!(head.contains(&format!("{tag}-src 'sha256-{hash}'")), "{tag}: sha256-{hash} is not in {head}");
    }
    for forbidden in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\"", "http://", "https://"]
    {
        let allowed = page.matches("'http://www.w3.org/2000/svg'").count();
        let found = page.matches(forbidden).count();
        assert_eq!(found, if forbidden == "http://" { allowed } else { 0 }, "{forbidden}");
    }
    // Whoever is no browser gets the list.
    let (_, list) = hotring.page("/");
    assert!(list.starts_with("hotring ") && list.contains("/status"), "{list}");
}

fn base64_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let all = chunk.iter().chain(&[0, 0]).take(3).fold(0u32, |all, byte| all << 8 | u32::from(*byte));
        for digit in 0..4 {
            let is_there = digit <= chunk.len();
            text.push(if is_there { char::from(DIGITS[(all >> (18 - 6 * digit) & 63) as usize]) } else { '=' });
        }
    }
    text
}

#[test]
fn a_killed_shard_a_hot_key_and_a_reload_are_seen() {
    let (mut redis, at) = shards(3);
    let site = Site::new(&pool(
        &at,
        &["^watch: off", "preconnect: true", "server_retry_timeout: 200ms", "hot_keys: {reads: observe}"],
    ));
    let hotring = &site.hotring;
    let mut browser = Browser::start();
    let calm = Crowd::of(2, hotring, |n| format!("user:{n}").into_bytes());
    opened(&mut browser, hotring, DESKTOP);
    browser.until("document.getElementById('word').textContent === 'All is well'");
    browser.until("document.querySelectorAll('.figures .spark .edge[d^=M]').length === 3");
    drop(calm);

    let crowd = Crowd::of(4, hotring, |_| b"the:hot:key".to_vec());
    let took = browser.until("[...document.querySelectorAll('.hotkeys tbody tr')].some(r => r.innerText.includes('the:hot:key') && r.innerText.includes('hot'))");
    println!("a hot key is seen after {took} ms of being asked for");
    browser.until("document.getElementById('all-hot').textContent === 'the:hot:key'");

    redis[1].kill();
    let took = browser.until(&format!("['suspect', 'down', 'ejected', 'half-open'].includes({})", state("s1")));
    println!("a killed shard is seen after {took} ms");
    browser.until("document.getElementById('verdict').className.includes('bad')");
    browser.until("document.getElementById('word').textContent === '1 of 3 servers is out'");
    browser.until("document.querySelectorAll('.ring path.unwell').length > 0");
    browser.until("[...document.querySelectorAll('#changes li')].some(li => li.textContent.includes('main/s1'))");
    // What is wrong stands first, and says so in words.
    assert_eq!(browser.value("document.querySelector('tbody tr').dataset.shard"), "s1");
    assert!(browser.value("document.querySelector('tbody tr').innerText").as_str().unwrap().contains("ejected"));
    browser.picture("killed-desktop");
    redis[1].restart();
    browser.until("document.getElementById('word').textContent === 'All is well'");

    site.reload(&pool(&at[..2], &["^watch: off", "preconnect: true", "hot_keys: {reads: observe}"]));
    let took = browser.until("document.getElementById('reload-word').textContent.includes('taken') && document.getElementById('reload-told').textContent.includes('goes s2')");
    println!("a reload is seen after {took} ms");
    browser.until("document.querySelectorAll('tr[data-shard]').length === 2");
    assert_eq!(site.reload("pools: {main: {servers: 3}}\n").0, 422);
    browser.until("document.getElementById('reload').className === 'refused' && document.getElementById('reload-told').textContent.includes('pools.main.listen: missing')");
    browser.value("document.getElementById('config').open = true");
    browser.until("document.getElementById('config-text').textContent.includes('max_pipeline: 1024')");
    assert!(!browser.value("document.body.innerText").as_str().unwrap().contains(support::TOKEN));
    drop(crowd);
    is_clean(&mut browser, hotring);
}

#[test]
fn what_keys_and_shards_are_called_is_text() {
    let (_redis, at) = shards(2);
    let name = r#"a"b\c'"><b>bold</b><img/src=x/onerror=alert(2)>"#;
    let yaml = pool(&at, &["hot_keys: {reads: observe}"])
        .replace(" s1\n", &format!(" {name}\n"))
        .replace("  main:", r#"  '"\"><i>main</i>':"#);
    let hotring = Hotring::with_admin(&yaml);
    let mut browser = Browser::start();
    let keys: [&[u8]; 4] = [
        b"<img src=x onerror=alert(1)>",
        b"</script><script>alert(3)</script>",
        b"\xff\x00\xfe\"'&",
        b"a\\b\x1b[31m\xe2\x80\xae",
    ];
    let _crowd = Crowd::of(4, &hotring, |n| keys[n].to_vec());
    opened(&mut browser, &hotring, DESKTOP);
    let shown = "[...document.querySelectorAll('.hotkeys tbody th')].map(th => th.textContent)";
    for text in [
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(3)</script>",
        r#"\\xff\\x00\\xfe\"'&"#,
        "a\\\\\\\\b\\\\x1b[31m\u{202e}",
    ] {
        browser.until(&format!("{shown}.includes(\"{text}\")"));
    }
    let (heading, shard) = (Value::from(r#""\"><i>main</i>"#), Value::from(name));
    browser.until(&format!("document.querySelector('h2').textContent === {heading}"));
    browser.until(&format!("[...document.querySelectorAll('tr[data-shard]')].some(r => r.dataset.shard === {shard})"));
    // Its row says so too, and that it is asked.
    let row = format!("[...document.querySelectorAll('tr[data-shard]')].find(r => r.dataset.shard === {shard})");
    browser.until(&format!("{row}.querySelector('th').textContent.includes({shard})"));
    assert_eq!(
        browser
            .value("document.querySelectorAll('#pools img, #pools b, #pools i:not(.state i), #pools script').length"),
        0
    );
    browser.picture("hostile-desktop");
    is_clean(&mut browser, &hotring);
}

#[test]
fn it_fits_a_phone_with_long_names_and_two_hundred_shards() {
    // Nobody is there: all are down, and that many are told of.
    let long = "a-server-with-a-very-long-name-that-somebody-has-thought-of.some-namespace.svc.cluster.local";
    let servers: Vec<String> = (0..200).map(|n| format!("      - 127.0.0.1:1:1 {long}-{n}\n")).collect();
    let yaml = format!(
        "pools:\n  main:\n    listen: 127.0.0.1:0\n    servers:\n{}  second: {{listen: '127.0.0.1:0', servers: embedded:3}}\n",
        servers.concat()
    );
    let hotring = Hotring::with_admin(&yaml);
    let mut apps: Vec<Client> = (0..3).map(|_| Client::connect(hotring.address(1))).collect();
    let long_key = "k".repeat(250);
    let mut browser = Browser::start();
    for size in [PHONE, DESKTOP] {
        opened(&mut browser, &hotring, size);
        browser.until("document.querySelectorAll('tr[data-shard]').length === 203");
        fits(&mut browser);
    }
    eventually("the long key is hot", || {
        for app in &mut apps {
            app.send(&support::wire(&["GET", &long_key]).repeat(50));
            (0..50).for_each(|_| drop(app.reply()));
        }
        hotring.page("/status").1.contains(&long_key)
    });
    let _crowd = Crowd::of(1, &hotring, |_| key_on(0, 2).into_bytes());
    opened(&mut browser, &hotring, PHONE);
    fits(&mut browser);
    browser.value("(document.querySelector('input[type=search]').value = '-19', document.querySelector('input[type=search]').dispatchEvent(new Event('input')))");
    browser.until("document.querySelectorAll('#pools section:first-child tr[data-shard]').length === 11");
    browser.picture("many-phone");
    is_clean(&mut browser, &hotring);
}

#[test]
fn it_says_since_when_there_is_no_answer_and_goes_on_when_there_is() {
    let dir = Scratch::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = listener.local_addr().unwrap().to_string();
    drop(listener);
    let file = dir.write(
        "own.yaml",
        &format!("admin: {admin}\npools:\n  main: {{listen: '127.0.0.1:0', servers: embedded:2}}\n"),
    );
    let start = || {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hotring"));
        child
            .args(["-c", &file])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = start();
    eventually("it listens", || std::net::TcpStream::connect(&admin).is_ok());
    let mut browser = Browser::start();
    browser.open(&format!("http://{admin}/"), DESKTOP);
    browser.until("!!document.getElementById('word') && document.getElementById('word').textContent === 'All is well'");
    child.kill().unwrap();
    child.wait().unwrap();
    browser.until("/^No answer since \\d\\d:\\d\\d:\\d\\d$/.test(document.getElementById('word').textContent)");
    assert_eq!(browser.value("document.querySelectorAll('tr[data-shard]').length"), 2, "what was known stays");
    browser.picture("gone-desktop");
    let mut child = start();
    browser.until("document.getElementById('word').textContent === 'All is well'");
    browser.until("[...document.querySelectorAll('#changes li')].some(li => li.textContent.includes('answers again'))");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What is there for who does not see, or not colours, or has no mouse.
#[test]
fn it_is_there_for_everybody() {
    let (mut redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &["preconnect: true", "hot_keys: {reads: observe}"]));
    let _crowd = Crowd::of(3, &hotring, |n| format!("user:{n}").into_bytes());
    let mut browser = Browser::start();
    opened(&mut browser, &hotring, DESKTOP);
    browser.until("document.querySelectorAll('.hotkeys tbody tr').length > 0");
    redis[2].kill();
    browser.until("document.getElementById('verdict').className.includes('bad')");
    // Everything that is drawn has words, every table its heads, every control its name.
    let nameless = "[...document.querySelectorAll('svg[role=img], section, [role=region], input, select, button, pre')]\
        .filter(n => !n.getAttribute('aria-label') && !n.getAttribute('aria-labelledby') && !(n.labels && n.labels.length) && !n.textContent.trim()).length";
    assert_eq!(browser.value(nameless), 0);
    assert_eq!(browser.value("[...document.querySelectorAll('table')].filter(t => !t.caption.textContent || !t.querySelector('thead th[scope=col]') || !t.querySelector('tbody th[scope=row]')).length"), 0);
    assert_eq!(browser.value("document.querySelector('#verdict').getAttribute('role')"), "status");
    assert_eq!(browser.value("document.documentElement.lang"), "en");
    // By keyboard: each step goes on to something that is seen.
    browser.value("document.activeElement.blur()");
    let mut visited = Vec::new();
    for _ in 0..24 {
        for kind in ["keyDown", "keyUp"] {
            browser.order(
                "Input.dispatchKeyEvent",
                json!({"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}),
            );
        }
        visited.push(browser.value(
            "(document.activeElement.id || document.activeElement.dataset.shard || document.activeElement.tagName)",
        ));
    }
    for wanted in ["s0", "s2", "explain-key", "changes"] {
        assert!(visited.contains(&Value::from(wanted)), "{wanted} is not reached: {visited:?}");
    }
    // Looked at by people: see the pictures.
    for (name, size, scheme, vision) in [
        ("desktop", DESKTOP, "light", "none"),
        ("desktop-dark", DESKTOP, "dark", "none"),
        ("desktop-grey", DESKTOP, "light", "achromatopsia"),
        ("phone", PHONE, "light", "none"),
        ("phone-dark", PHONE, "dark", "none"),
    ] {
        browser.order(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
        browser.order("Emulation.setEmulatedVisionDeficiency", json!({"type": vision}));
        opened(&mut browser, &hotring, size);
        browser.until("document.querySelectorAll('.spark .edge[d*=L]').length > 0");
        fits(&mut browser);
        let ground = browser.value("getComputedStyle(document.body).backgroundColor");
        assert_eq!(ground == "rgb(252, 251, 249)", scheme == "light", "{ground}");
        assert!(browser.picture(name).exists());
    }
    is_clean(&mut browser, &hotring);
}
