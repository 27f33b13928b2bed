//! What holds for each pod that hotring runs in, whoever wrote it: the chart, or one of the plain manifests.

use crate::support::Scratch;
use crate::tools::{at, check, list, of_kind, text, with_secrets};
use hotring::config::{self, Config};
use hotring::units::Address;
use serde_yaml::Value;
use std::path::Path;

/// Kubernetes' own standard for pods is `restricted`; besides, hotring must be reached where it listens, and end last.
pub(crate) fn hold(name: &str, documents: &[Value]) {
    of_kind(documents, "ConfigMap").for_each(|map| check(proxy_yaml(map)));
    let workloads = documents.iter().filter(|one| matches!(text(one, "kind"), "Deployment" | "DaemonSet"));
    for workload in workloads {
        let (labels, pod) = (at(workload, "spec.template.metadata.labels"), at(workload, "spec.template.spec"));
        selects(name, at(workload, "spec.selector.matchLabels"), labels);
        holds_for_pod(name, pod, documents);
        for service in of_kind(documents, "Service") {
            selects(name, at(service, "spec.selector"), labels);
            for port in list(service, "spec.ports") {
                let (number, target) = (at(port, "port").as_u64(), text(port, "targetPort"));
                assert!(
                    ports(hotring(name, pod).0).any(|(name, there)| name == target && Some(there) == number),
                    "{name}"
                );
            }
        }
        for policy in of_kind(documents, "NetworkPolicy") {
            selects(name, at(policy, "spec.podSelector.matchLabels"), labels);
            assert_eq!(text(policy, "spec.policyTypes.0"), "Ingress", "{name}");
        }
        for budget in of_kind(documents, "PodDisruptionBudget") {
            selects(name, at(budget, "spec.selector.matchLabels"), labels);
        }
        for monitor in of_kind(documents, "PodMonitor") {
            selects(name, at(monitor, "spec.selector.matchLabels"), labels);
            let endpoint = at(monitor, "spec.podMetricsEndpoints.0");
            let metrics = ports(hotring(name, pod).0).any(|(there, _)| there == text(endpoint, "port"));
            assert!(metrics && text(endpoint, "path") == "/metrics", "{name}: {endpoint:?}");
        }
    }
}

/// The configuration in a ConfigMap.
pub(crate) fn proxy_yaml(map: &Value) -> &str {
    at(map, "data").get("proxy.yaml").and_then(Value::as_str).expect("a ConfigMap with a proxy.yaml")
}

/// hotring's container, and whether it is a native sidecar.
pub(crate) fn hotring<'a>(name: &str, pod: &'a Value) -> (&'a Value, bool) {
    let named = |path| list(pod, path).iter().find(|one| text(one, "name") == "hotring");
    match (named("initContainers"), named("containers")) {
        (Some(native), None) => (native, true),
        (None, Some(beside)) => (beside, false),
        _ => panic!("{name}: hotring is not there once"),
    }
}

fn ports(container: &Value) -> impl Iterator<Item = (&str, u64)> {
    list(container, "ports").iter().map(|port| (text(port, "name"), at(port, "containerPort").as_u64().unwrap()))
}

/// Each label that is looked for is there.
fn selects(name: &str, selector: &Value, labels: &Value) {
    let selector = selector.as_mapping().unwrap_or_else(|| panic!("{name}: no labels are selected"));
    assert!(!selector.is_empty(), "{name}: all pods are selected");
    for (label, value) in selector {
        assert_eq!(labels.get(label), Some(value), "{name}: {label:?}");
    }
}

fn holds_for_pod(name: &str, pod: &Value, documents: &[Value]) {
    assert_eq!(at(pod, "automountServiceAccountToken").as_bool(), Some(false), "{name}");
    assert_eq!(at(pod, "securityContext.runAsNonRoot").as_bool(), Some(true), "{name}");
    assert_eq!(text(pod, "securityContext.seccompProfile.type"), "RuntimeDefault", "{name}");
    for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(at(pod, forbidden).is_null(), "{name}: {forbidden}");
    }
    let volumes: Vec<&str> = list(pod, "volumes").iter().map(|volume| text(volume, "name")).collect();
    let mut used = Vec::new();
    for container in list(pod, "initContainers").iter().chain(list(pod, "containers")) {
        let context = at(container, "securityContext");
        assert_eq!(at(context, "readOnlyRootFilesystem").as_bool(), Some(true), "{name}");
        assert_eq!(at(context, "allowPrivilegeEscalation").as_bool(), Some(false), "{name}");
        assert_eq!(text(context, "capabilities.drop.0"), "ALL", "{name}");
        assert!(at(context, "capabilities.add").is_null() && at(context, "privileged").is_null(), "{name}");
        assert!(!at(container, "resources.limits.memory").is_null(), "{name}");
        assert!(at(container, "resources.limits.cpu").is_null(), "{name}: a limit of CPU delays requests");
        for mount in list(container, "volumeMounts") {
            assert!(volumes.contains(&text(mount, "name")), "{name}: {mount:?}");
            // What is mounted so never changes.
            assert!(at(mount, "subPath").is_null(), "{name}: {mount:?}");
            used.push(text(mount, "name"));
        }
    }
    assert!(volumes.iter().all(|volume| used.contains(volume)), "{name}: {volumes:?}");
    let (container, native) = hotring(name, pod);
    let user = [pod, container].map(|of| at(of, "securityContext.runAsUser").as_u64());
    assert_eq!(user[1].or(user[0]), Some(65532), "{name}");
    assert_eq!(text(container, "restartPolicy"), if native { "Always" } else { "" }, "{name}");
    assert!(
        at(container, "lifecycle").is_null(),
        "{name}: there is no program in the image to run, and `drain` is enough"
    );

    // It reads the file that is mounted, and the files that are named there are mounted, too.
    assert_eq!(
        list(container, "args").iter().filter_map(Value::as_str).collect::<Vec<_>>(),
        ["-c", "/etc/hotring/proxy.yaml"]
    );
    let map = list(pod, "volumes").iter().find(|volume| text(volume, "name") == "hotring-config").unwrap();
    let mounts = list(container, "volumeMounts");
    let mounted = |path: &str| mounts.iter().any(|mount| path.starts_with(&format!("{}/", text(mount, "mountPath"))));
    assert!(mounted("/etc/hotring/proxy.yaml"), "{name}");
    let Some(map) =
        of_kind(documents, "ConfigMap").find(|one| text(one, "metadata.name") == text(map, "configMap.name"))
    else {
        assert!(name.contains("existing"), "{name}: no such ConfigMap");
        return;
    };
    let yaml = proxy_yaml(map);
    for file in ["password_file: ", "admin_token_file: "].iter().flat_map(|key| yaml.split(key).skip(1)) {
        let file = file.split(['}', '\n', ',']).next().unwrap().trim();
        assert!(mounted(file), "{name}: {file} is not mounted");
    }
    // Loaded as hotring does it; passwords are not what this is about.
    let dir = Scratch::new();
    let plain = with_secrets(&without_files(yaml), &dir);
    let config =
        config::parse(&plain, Path::new("proxy.yaml")).unwrap_or_else(|wrong| panic!("{name}: {wrong}\n{plain}"));
    listens(name, &config, container, pod);
    ends_in_order(name, &config, native, pod);
}

/// The same with passwords in the place of their files.
fn without_files(yaml: &str) -> String {
    let yaml = yaml.replace("admin_token_file: ", "admin_token: ");
    let mut parts = yaml.split("password_file: ");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |before, part| before + "password: x" + &part[part.find(['}', '\n', ',']).unwrap()..])
}

/// The kubelet finds the admin port, and apps what they connect to.
fn listens(name: &str, config: &Config, container: &Value, pod: &Value) {
    let admin = config.admin.as_ref().expect("an admin listener").to_string();
    assert!(!admin.starts_with("127."), "{name}: the kubelet cannot reach {admin}");
    let port: u64 = admin.rsplit(':').next().unwrap().parse().unwrap();
    for (probe, path) in [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        let get = at(container, &format!("{probe}.httpGet")).clone();
        assert_eq!(text(&get, "path"), path, "{name}");
        assert!(ports(container).any(|(name, there)| name == text(&get, "port") && there == port), "{name}: {probe}");
    }
    let mounts = |of: &Value| list(of, "volumeMounts").iter().any(|mount| text(mount, "mountPath") == "/run/hotring");
    for (address, _) in config.pools.iter().flat_map(|pool| pool.downstream.listeners()) {
        match address {
            // The app has the directory, too.
            Address::Unix { path, .. } => {
                assert!(path.starts_with("/run/hotring") && mounts(container), "{name}: {address}");
                let apps = list(pod, "containers").iter().filter(|one| text(one, "name") != "hotring");
                assert!(apps.clone().count() > 0 && apps.clone().all(mounts), "{name}: {address}");
            }
            Address::Tcp { host, .. } if host == "127.0.0.1" => {}
            Address::Tcp { port, .. } => {
                assert!(ports(container).any(|(_, there)| there == u64::from(*port)), "{name}: {address} is no port");
            }
        }
    }
}

/// hotring outlives the app, and the kubelet waits for both.
fn ends_in_order(name: &str, config: &Config, native: bool, pod: &Value) {
    let grace = at(pod, "terminationGracePeriodSeconds").as_u64().unwrap();
    let (delay, timeout) = (config.drain.delay.as_secs(), config.drain.timeout.as_secs());
    assert!(grace > delay + timeout, "{name}: {grace} s for {delay} and {timeout}");
    // A native sidecar is told to end when the app has: whoever waited then would hold the pod for nothing.
    assert_eq!(delay == 0, native, "{name}");
}
