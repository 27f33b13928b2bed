//! What is in deploy/ is what the tools of its readers take, and a pod that is made of it starts, serves, takes a new
//! configuration and ends as docs/kubernetes.md says.
//!
//! helm renders and lints the charts, Kubernetes' own schemas (`kubernetes-validate`) look at all that is applied, hadolint at the
//! Dockerfile, systemd at its unit: the real ones, which `tests/setup` installs. Two things need what a test cannot have: an
//! image is not built here, since that takes images to begin with and minutes, so that what looks at one (deploy/check-image.sh)
//! is given those that are put together here; and a PodMonitor is looked at by this test alone, since the schema of its project is
//! not in the packages.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "deploy/image.rs"]
mod image;
#[path = "deploy/pod.rs"]
mod pod;
#[path = "deploy/rules.rs"]
mod rules;
mod support;
#[path = "deploy/tools.rs"]
mod tools;

use pod::{Pod, ask_until};
use std::process::Command;
use support::{Client, Scratch, eventually, now, shards};
use tools::{
    app_chart, at, deploy, documents, helm, list, of_kind, python_tool, read, render, run, text, validate, well,
};

#[test]
fn the_image_is_one_program_without_a_shell_or_a_root() {
    let path = deploy("Dockerfile");
    well(python_tool("hadolint").args(["--failure-threshold", "style"]).arg(&path));
    let file = read(&path).replace("\\\n", " ");
    let (build, last) = file.rsplit_once("\nFROM ").unwrap();
    let manifest = read(&deploy("../Cargo.toml"));
    let version = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(build.contains(&format!("\nFROM rust:{version}-alpine")), "the compiler that Cargo.toml asks for");
    // Static, and that is looked at where it is built.
    assert!(build.contains("target-feature=+crt-static") && build.contains("| grep INTERP;"));
    assert!(last.starts_with("scratch\n") && !last.contains("\nRUN "), "{last}");
    let copies: Vec<&str> = last.lines().filter(|line| line.starts_with("COPY ") || line.starts_with("ADD ")).collect();
    assert_eq!(copies, ["COPY --from=build /hotring /hotring"]);
    assert!(last.contains("\nUSER 65532:65532\n"));
    assert!(last.ends_with("\nENTRYPOINT [\"/hotring\"]\nCMD [\"-c\", \"/etc/hotring/proxy.yaml\"]\n"));
}

/// What Docker would be given has all that the manifest names.
#[test]
fn what_the_image_is_built_from_is_all_there() {
    let dir = Scratch::new();
    let rules = read(&deploy("Dockerfile.dockerignore"));
    let mut lines = rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), "nothing but what is named");
    for line in lines {
        let script = format!("cp -r --parents {} '{}'", line.strip_prefix('!').unwrap(), dir.0.display());
        well(Command::new("sh").args(["-c", &script]).current_dir(deploy("..")));
    }
    // A build wants the files of all targets, also of those that it does not make.
    let manifest = read(&deploy("../Cargo.toml"));
    let benches = manifest.split("[[bench]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let missing: Vec<&str> = benches.filter(|name| !dir.0.join(format!("benches/{name}.rs")).exists()).collect();
    assert!(missing.is_empty() && manifest.contains("[[bench]]"), "{missing:?}");
    for wanted in ["Cargo.toml", "Cargo.lock", "src/main.rs", "src/architecture.md"] {
        assert!(dir.0.join(wanted).exists(), "{wanted}");
    }
    assert!(!dir.0.join("target").exists() && !dir.0.join(".git").exists());
}

/// hotring alone in a root that it cannot write to, as nobody and without capabilities, starts, serves and ends; the script that
/// finds this out for whoever has built an image finds it out here.
#[test]
fn an_image_is_looked_at_and_run_with_nothing_but_the_program() {
    let dir = Scratch::new();
    let good = image::archive(&dir, image::SETTINGS, &image::static_hotring(&dir), false);
    // Not optimised it is larger than that of an image.
    let (well, said) = image::look(&good, &["--max-mib", "200"]);
    assert!(well && said.contains("ok    SIGTERM ends it, with 0") && !said.contains("FAIL"), "{said}");
}

#[test]
fn an_image_that_is_not_as_told_is_found_out() {
    let dir = Scratch::new();
    let (plain, nothing) = (image::SETTINGS, image::static_nothing(&dir));
    // What does not hold, the first of it.
    let found = |settings: &str, program: &str, shell: bool, max_mib: &str| {
        let (well, said) = image::look(&image::archive(&dir, settings, program, shell), &["--max-mib", max_mib]);
        assert!(!well, "{said}");
        said.lines().find_map(|line| line.strip_prefix("FAIL  ")).unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    assert_eq!(found(plain, &nothing, true, "20"), "one file and nothing else, no shell: bin bin/sh hotring");
    assert_eq!(found(plain, env!("CARGO_BIN_EXE_hotring"), false, "2000"), "the program is static");
    assert!(found(plain, &nothing, false, "0").contains("less than 0 MiB"));
    assert_eq!(found(plain, &nothing, false, "20"), "it says its version: ");
    for (right, wrong, wanted) in [
        ("65532:65532", "", "user and group are numbers, and not root's: root"),
        ("65532:65532", "0:0", "user and group are numbers, and not root's: 0:0"),
        ("65532:65532", "hotring", "user and group are numbers, and not root's: hotring"),
        ("[\"/hotring\"]", "[\"hotring\"]", "Entrypoint: [\"/hotring\"]"),
        ("/etc/hotring/", "/etc/", "Cmd: [\"-c\",\"/etc/hotring/proxy.yaml\"]"),
        ("9380/tcp", "9381/tcp", "9380/tcp: {}"),
        ("SIGTERM", "SIGKILL", "StopSignal: \"SIGTERM\""),
    ] {
        assert_eq!(found(&plain.replace(right, wrong), &nothing, false, "20"), wanted);
    }
}

#[test]
fn the_plain_manifests_are_valid_and_their_pods_safe() {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(deploy("kubernetes")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        rules::hold(&name, &documents(&read(&path)));
        files.push((name, read(&path)));
    }
    assert_eq!(files.len(), 4);
    validate(&files);
    // The two with a sidecar differ in nothing but what they are about.
    let [native, classic] =
        ["native", "classic"].map(|name| documents(&read(&deploy(&format!("kubernetes/sidecar-{name}.yaml")))));
    let container = |all: &[_]| {
        let deployment = of_kind(all, "Deployment").next().unwrap();
        let mut container = rules::hotring("sidecar", at(deployment, "spec.template.spec")).0.clone();
        container.as_mapping_mut().unwrap().remove("restartPolicy");
        container
    };
    assert_eq!(container(&native), container(&classic));
}

/// What the chart is asked for: a name, and the values.
const VALUES: &[(&str, &str)] = &[
    ("standalone", "mode: standalone"),
    ("daemonset", "mode: daemonset"),
    ("hostport", "{mode: daemonset, hostPort: true}"),
    ("existing", "{mode: standalone, existingConfigMap: mine}"),
    (
        "tls",
        "{mode: standalone, secrets: [hotring-tls], tlsPorts: {main: 6390}, config: {pools: {main: {tls: {cert: \
             /etc/hotring-secrets/hotring-tls/tls.crt, key: /etc/hotring-secrets/hotring-tls/tls.key}}}}}",
    ),
    ("ipv6", "{mode: standalone, bindAddress: \"[::]\"}"),
    (
        "everything",
        r#"
mode: standalone
image: {repository: example.com/hotring, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: pull}]
fullnameOverride: cache
config:
  log: {format: json}
  drain: {delay: 3s, timeout: 2s}
  pools:
    main: null
    Sessions_of_all_users:
      servers: ["redis-0.redis:6379:1 redis-0", "redis-1.redis:6379:1 redis-1"]
      distribution: even
      server_auth: {password_file: /etc/hotring-secrets/redis/password}
    jobs: {listen: "0.0.0.0:6390", servers: ["redis-0.redis:6379:1 redis-0"]}
ports: {Sessions_of_all_users: 6380, jobs: 6390}
secrets: [redis]
adminToken: {existingSecret: hotring-admin, key: the-token}
replicas: 3
env: [{name: ZONE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}]
service: {type: LoadBalancer, annotations: {a: b}}
podDisruptionBudget: {maxUnavailable: 50%}
restartOnChange: true
podLabels: {team: x}
podAnnotations: {a: b}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{operator: Exists}]
affinity: {nodeAffinity: {}}
priorityClassName: high
networkPolicy: {enabled: true, from: [{podSelector: {}}], adminFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}
podMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}, runbook: "https://example.com/runbook"}
"#,
    ),
];

#[test]
fn the_chart_renders_what_kubernetes_takes() {
    let chart = deploy("helm/hotring");
    let dir = Scratch::new();
    well(helm(&dir).args(["lint", "--strict"]).arg(&chart));
    let mut files = Vec::new();
    for (name, values) in VALUES {
        // With what it tells who installs it; no cluster is asked.
        let mut install = helm(&dir);
        install.args(["install", "try", "--dry-run=client", "--kubeconfig", "/dev/null", "--values"]);
        let told = well(install.arg(dir.write("values.yaml", values)).arg(&chart));
        let notes = told.split_once("NOTES:\n").unwrap_or_else(|| panic!("{told}")).1;
        assert!(notes.contains(".default:6380   (pool ") && !notes.contains("<no value>"), "{name}: {notes}");
        assert_eq!(notes.contains("Name your servers"), !["existing", "everything"].contains(name), "{name}: {notes}");
        let (rendered, all) = render(&chart, values).unwrap_or_else(|error| panic!("{name}: {error}"));
        rules::hold(name, &all);
        let kinds: Vec<&str> = all.iter().map(|one| text(one, "kind")).collect();
        let has = |kind| kinds.contains(&kind);
        assert_eq!(has("DaemonSet"), ["daemonset", "hostport"].contains(name), "{kinds:?}");
        assert_eq!(has("Deployment"), !has("DaemonSet"), "{kinds:?}");
        assert!(has("Service") && has("ConfigMap") == (*name != "existing"), "{kinds:?}");
        for optional in ["NetworkPolicy", "PodMonitor", "PrometheusRule"] {
            assert_eq!(has(optional), *name == "everything", "{kinds:?}");
        }
        files.push((format!("{name}.yaml"), rendered));
    }
    validate(&files);
    let sidecar = "{config: {pools: {other: {servers: embedded:1}}}, ports: {other: 6390}}";
    let mut install = helm(&dir);
    install.args(["install", "try", "--dry-run=client", "--kubeconfig", "/dev/null", "--values"]);
    let told = well(install.arg(dir.write("values.yaml", sidecar)).arg(&chart));
    assert!(
        told.contains("127.0.0.1:6390   (pool other)") && told.contains("/run/hotring/main.sock   (pool main)"),
        "{told}"
    );
    let everything = &files.last().unwrap().1;
    let rule = documents(everything).into_iter().find(|one| text(one, "kind") == "PrometheusRule").unwrap();
    let mut alerts = read(&deploy("prometheus/alerts.yaml"));
    alerts = alerts.replace("docs/runbook.md", "https://example.com/runbook");
    assert_eq!(at(&rule, "spec"), &documents(&alerts)[0], "the alerts as they are, but for where they lead");
    // Where nobody says where the page is, there is no link that leads nowhere: its section is named.
    let values =
        "{prometheusRule: {enabled: true}, podMonitor: {enabled: true, podSelector: {matchLabels: {app: web}}}}";
    let (rendered, all) = render(&chart, values).unwrap();
    validate(&[("alerts.yaml".to_owned(), rendered)]);
    let alerts = read(&deploy("prometheus/alerts.yaml")).replace("runbook_url: docs/", "runbook: docs/");
    let rule = of_kind(&all, "PrometheusRule").next().unwrap();
    assert_eq!(at(rule, "spec"), &documents(&alerts)[0]);
    assert!(!alerts.contains("runbook_url"), "{alerts}");
    for wanted in
        ["cache", "example.com/hotring@sha256:01", "delay: 3s", "maxUnavailable: 50%", "name: sessions-of-all"]
    {
        assert!(everything.contains(wanted), "{wanted}: {everything}");
    }
    // A change of the configuration alone starts no pod anew, unless that is asked for.
    let pods = |values: &str| {
        let (_, all) = render(&chart, values).unwrap();
        at(of_kind(&all, "Deployment").next().unwrap(), "spec.template").clone()
    };
    let with = |more: &str| format!("{{mode: standalone, config: {{watch: 5s}}{more}}}");
    assert_eq!(pods("mode: standalone"), pods(&with("")));
    assert_ne!(pods("{mode: standalone, restartOnChange: true}"), pods(&with(", restartOnChange: true")));
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (values, wanted) in [
        ("mode: sidekick", "/mode"),
        ("sidcar: {}", "sidcar"),
        ("adminPort: 0", "/adminPort"),
        ("sidecar: {appSeconds: long}", "/sidecar/appSeconds"),
        ("image: {digest: latest}", "/image/digest"),
        ("config: {pools: {main: {servers: null}}}", "servers"),
        ("secrets: [../etc]", "/secrets/0"),
        ("{mode: standalone, ports: {main: null}}", "ports.main: the pool has no port"),
        ("{mode: standalone, tlsPorts: {main: 6390}}", "tlsPorts.main: the pool has no `tls`"),
        ("networkPolicy: {enabled: true}", "networkPolicy.podSelector: which pods"),
        ("podMonitor: {enabled: true}", "podMonitor.podSelector: which pods"),
        ("prometheusRule: {runbook: docs/runbook.md}", "/prometheusRule/runbook"),
        ("prometheusRule: {runbook: 'https://example.com/a b'}", "/prometheusRule/runbook"),
        // Labels without `matchLabels` would select all pods.
        ("networkPolicy: {enabled: true, podSelector: {app: web}}", "/networkPolicy/podSelector"),
        ("podMonitor: {enabled: true, podSelector: {app: web}}", "/podMonitor/podSelector"),
    ] {
        let error = render(&deploy("helm/hotring"), values).map(|(text, _)| text).unwrap_err();
        assert!(error.contains(wanted), "{values}: {error}");
    }
}

#[test]
fn an_apps_own_chart_takes_the_sidecar() {
    let dir = Scratch::new();
    let app = app_chart(&dir);
    well(helm(&dir).args(["lint", "--strict"]).arg(&app));
    let mut files = Vec::new();
    for (name, values) in [
        ("native", "{}"),
        ("classic", "hotring: {sidecar: {native: false, appSeconds: 7}}"),
        (
            "secret",
            "hotring: {secrets: [redis], config: {pools: {main: {client_auth: {password_file: /etc/hotring-secrets/redis/password}}}}}",
        ),
        ("existing", "hotring: {existingConfigMap: mine}"),
        (
            "watched",
            "hotring: {networkPolicy: {enabled: true, podSelector: {matchLabels: {app: try}}, appPorts: [8080]}, \
                     podMonitor: {enabled: true, podSelector: {matchLabels: {app: try}}}}",
        ),
    ] {
        let (rendered, all) = render(&app, values).unwrap_or_else(|error| panic!("{name}: {error}"));
        rules::hold(name, &all);
        let spec = at(of_kind(&all, "Deployment").next().unwrap(), "spec.template.spec");
        assert_eq!(rules::hotring(name, spec).1, name != "classic");
        assert_eq!(list(spec, "initContainers").len() + list(spec, "containers").len(), 2);
        let grace = if name == "classic" { 7 + 5 + 5 } else { 25 + 5 + 5 };
        assert_eq!(at(spec, "terminationGracePeriodSeconds").as_u64(), Some(grace), "{name}");
        assert!(!all.iter().any(|one| text(one, "kind") == "Service"), "only the app knows what it serves");
        files.push((format!("{name}.yaml"), rendered));
    }
    validate(&files);
    // Without the socket there is nothing to mount.
    let (plain, _) = render(&app, "hotring: {sidecar: {socket: false}}").unwrap();
    assert!(!plain.contains("hotring-socket") && !plain.contains("main.sock 0666"), "{plain}");
}

/// systemd reads the unit, also as one of several instances, and says how much it is exposed: of 10, where 0 is nothing.
#[test]
fn the_unit_is_one_that_systemd_takes() {
    let dir = Scratch::new();
    let unit = read(&deploy("systemd/hotring.service"));
    // It looks for the program.
    let here = unit.replace("/usr/local/bin/hotring", env!("CARGO_BIN_EXE_hotring"));
    for name in ["hotring.service", "hotring@.service"] {
        let said = well(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(dir.write(name, &here)));
        assert!(!said.contains("hotring"), "{said}");
    }
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=true", "--threshold=15"]);
    well(security.arg(dir.file("hotring.service")));
    // And it is able to find fault.
    let bad = dir.write("bad.service", &here.replace("ProtectSystem=strict", "ProtectSystem=perhaps"));
    let (_, found) = run(Command::new("systemd-analyze").args(["verify", "--man=no", &bad]));
    assert!(found.contains("bad.service:") && found.contains("perhaps"), "{found}");
    let said = |key: &str| unit.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap();
    assert_eq!(said("ExecReload"), "/bin/kill -HUP $MAINPID");
    let drain = hotring::config::DRAIN;
    assert!(said("TimeoutStopSec").parse::<u64>().unwrap() > (drain.delay + drain.timeout).as_secs());
    // These exit codes are those of a bad and a missing file.
    assert_eq!(said("RestartPreventExitStatus"), "64 78");
    for directory in [said("RuntimeDirectory"), said("User")] {
        assert_eq!(directory, "hotring", "instances that replace each other meet there");
    }
}

/// docs/kubernetes.md: its commands name what is there, helm takes its values, and its template lines are those of deploy/helm/app.
#[test]
fn the_page_says_what_is_there() {
    let page = read(&deploy("../docs/kubernetes.md"));
    let blocks: Vec<(&str, &str)> =
        page.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect();
    let dir = Scratch::new();
    let app = app_chart(&dir);
    let (mut commands, mut rendered) = (0, 0);
    for line in blocks.iter().filter(|(info, _)| *info == "sh").flat_map(|(_, text)| text.lines()) {
        for word in line.split_whitespace().filter(|word| word.starts_with("deploy/")) {
            assert!(deploy("..").join(word).exists(), "{line}");
            commands += 1;
        }
        // What needs a cluster is rendered only.
        if let Some(arguments) = line.strip_prefix("helm install ") {
            let chart = app.to_str().unwrap();
            let arguments =
                arguments.split_whitespace().map(|word| if word == "deploy/helm/app" { chart } else { word });
            well(helm(&dir).arg("template").args(arguments).current_dir(deploy("..")));
        }
    }
    for (_, text) in blocks.iter().filter(|(info, _)| *info == "yaml fragment") {
        let chart = match text.split(':').next().unwrap() {
            "hotring" => &app,
            "secrets" => &deploy("helm/hotring"),
            _ => continue,
        };
        rules::hold("the page's", &render(chart, text).unwrap_or_else(|error| panic!("{text}\n{error}")).1);
        rendered += 1;
    }
    assert!(commands >= 4 && rendered == 2, "{commands} {rendered}");
    let (_, lines) = blocks.iter().find(|(_, text)| text.contains("hotring.initContainers")).unwrap();
    let template = read(&deploy("helm/app/templates/deployment.yaml"));
    for line in lines.lines().filter(|line| line.contains("{{")) {
        assert!(template.lines().any(|there| there.trim() == line.trim()), "{line}");
    }
    // The values that are told of exist.
    let values = &documents(&read(&deploy("helm/hotring/values.yaml")))[0];
    let table = page.split("| Value | What it does |").nth(1).unwrap().split("\n\n").next().unwrap();
    for row in table.lines().filter_map(|row| row.strip_prefix("| `")?.split(" | ").next()) {
        for name in row.split('`').filter(|name| !name.trim_matches([',', ' ']).is_empty()) {
            assert!(!at(values, name).is_null(), "{name} is not among the values");
        }
    }
}

/// Values of the app's chart over these servers, taken at once when they change.
fn over(servers: &[String], more: &str) -> String {
    let named: Vec<String> = servers.iter().enumerate().map(|(n, at)| format!("\"{at}:1 s{n}\"")).collect();
    let config = format!(
        "{{watch: 100ms, pools: {{main: {{timeout: 1m, connect_timeout: 1m, servers: [{}]}}}}}}",
        named.join(", ")
    );
    format!("hotring: {{config: {config}{more}}}")
}

#[test]
fn a_pod_with_a_native_sidecar_starts_serves_changes_and_ends() {
    let (_redis, servers) = shards(2);
    let dir = Scratch::new();
    let chart = app_chart(&dir);
    let (_, first) = render(&chart, &over(&servers, "")).unwrap();
    let mut pod = Pod::start(&first);
    // The startup probe has succeeded, so the app starts: the socket is there at once.
    let mut app = Client::connect(&pod.socket());
    assert_eq!(app.ask("SET greeting hello"), "+OK\r\n");
    pod.is_probed("readinessProbe", 200);
    pod.is_probed("livenessProbe", 200);
    assert!(pod.page("/metrics").unwrap().1.contains("hotring_"));

    // `helm upgrade`: the ConfigMap's volume is swapped, and no session is cut.
    let (_, second) = render(&chart, &over(&servers, "").replace("main: {", "main: {max_pipeline: 77, ")).unwrap();
    assert!(!pod.page("/config").unwrap().1.contains("max_pipeline: 77"));
    pod.update(&second);
    eventually("the other version is taken", || pod.page("/config").unwrap().1.contains("max_pipeline: 77"));
    assert_eq!(app.ask("GET greeting"), "$5\r\nhello\r\n");
    // One with a mistake changes nothing, and does not make the pod unready.
    let (_, wrong) = render(&chart, &over(&servers, "").replace("main: {", "main: {max_pipelime: 1, ")).unwrap();
    pod.update(&wrong);
    eventually("it is told", || pod.page("/readyz").unwrap().1.contains("max_pipelime"));
    pod.is_probed("readinessProbe", 200);
    assert_eq!(app.ask("GET greeting"), "$5\r\nhello\r\n");
    pod.update(&second);

    // A container that is killed leaves its socket's file in the volume; the next one serves there.
    pod.crash();
    assert_eq!(app.rest(), b"");
    assert_eq!(ask_until(&pod.socket(), |round| round == 20), Vec::<String>::new());

    // The end: the kubelet tells the app, and hotring only when the app has ended.
    let mut app = Client::connect(&pod.socket());
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    drop(app);
    assert!(!pod.has_ended());
    let told = now();
    pod.terminate();
    assert_eq!(pod.end(), Some(0));
    assert!(told.elapsed().as_secs() < pod.grace());
    assert!(Client::try_connect(&pod.socket()).is_err());
}

#[test]
fn a_password_that_changes_is_taken_from_its_secret() {
    let (_redis, servers) = shards(1);
    let dir = Scratch::new();
    let secret = "main: {client_auth: {password_file: /etc/hotring-secrets/redis/password}, ";
    let values = over(&servers, ", secrets: [redis]").replace("main: {", secret);
    let mut pod = Pod::start(&render(&app_chart(&dir), &values).unwrap().1);
    let mut app = Client::connect(&pod.socket());
    assert!(app.ask("GET k").starts_with("-NOAUTH"));
    assert_eq!(app.ask("AUTH first"), "+OK\r\n");
    pod.rotate("redis", "second\n");
    eventually("the other one counts", || Client::connect(&pod.socket()).ask("AUTH second") == "+OK\r\n");
    assert!(Client::connect(&pod.socket()).ask("AUTH first").starts_with("-WRONGPASS"));
}

#[test]
fn a_classic_sidecar_serves_until_the_app_has_ended() {
    let (_redis, servers) = shards(2);
    let dir = Scratch::new();
    let chart = app_chart(&dir);
    let (_, all) = render(&chart, &over(&servers, ", sidecar: {native: false, appSeconds: 5}")).unwrap();
    let mut pod = Pod::start(&all);
    // Both are told at the same moment. The app is slow to end: it asks on, and connects anew.
    let told = now();
    pod.terminate();
    let mut since = None;
    let wrong = ask_until(&pod.socket(), |round| {
        // Long after Services have stopped to lead here.
        if pod.page("/readyz").unwrap().0 == 503 {
            since.get_or_insert(round);
        }
        since.is_some_and(|first| round >= first + 200) || told.elapsed().as_secs() >= 3
    });
    assert_eq!(wrong, Vec::<String>::new(), "after {:?}", told.elapsed());
    assert!(since.is_some(), "the pod is not ready any more");
    assert!(!pod.has_ended(), "the app ends first");
    pod.is_probed("livenessProbe", 200);
    assert_eq!(pod.end(), Some(0));
    assert!(told.elapsed().as_secs() < pod.grace(), "nobody is killed");
}
