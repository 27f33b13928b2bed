//! An image without anything that builds one: what `docker save` would write of it, put together here.

use crate::support::Scratch;
use crate::tools::{deploy, run, well};
use std::path::Path;
use std::process::Command;

/// What the Dockerfile sets.
pub(crate) const SETTINGS: &str = r#"{"architecture": "amd64", "os": "linux", "config": {"User": "65532:65532",
    "ExposedPorts": {"6380/tcp": {}, "9380/tcp": {}}, "Entrypoint": ["/hotring"], "StopSignal": "SIGTERM",
    "Cmd": ["-c", "/etc/hotring/proxy.yaml"]}, "rootfs": {"type": "layers", "diff_ids": []}}"#;

/// hotring of this build, linked again without anything to load: a second's work, where building all of it for musl takes minutes.
pub(crate) fn static_hotring(dir: &Scratch) -> String {
    let deps = Path::new(env!("CARGO_BIN_EXE_hotring")).with_file_name("deps");
    let libraries = std::fs::read_dir(&deps).unwrap().map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("libhotring-") && name.ends_with(".rlib")
    });
    let library = libraries.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap();
    let program = dir.file("static");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-name=hotring", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-o"]);
    rustc.args([&program, "src/main.rs", "--extern"]).arg(format!("hotring={}", library.display()));
    well(rustc.arg("-L").arg(format!("dependency={}", deps.display())).current_dir(env!("CARGO_MANIFEST_DIR")));
    program
}

/// A static program that does nothing, well.
pub(crate) fn static_nothing(dir: &Scratch) -> String {
    let (source, program) = (dir.write("nothing.rs", "fn main() {}"), dir.file("nothing"));
    well(Command::new("rustc").args(["-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-o", &program, &source]));
    program
}

/// An archive of an image with these settings, in which there is this program, and a shell too if that is wanted.
pub(crate) fn archive(dir: &Scratch, settings: &str, program: &str, shell: bool) -> String {
    let tar = |of: &str, name: &str| {
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "-C", &dir.file(of), "-cf", &dir.file(name), "."]);
        well(&mut tar);
    };
    for of in ["root", "archive"] {
        let _ = std::fs::remove_dir_all(dir.file(of));
        std::fs::create_dir(dir.file(of)).unwrap();
    }
    std::fs::copy(program, dir.file("root/hotring")).unwrap();
    if shell {
        std::fs::create_dir(dir.file("root/bin")).unwrap();
        std::fs::copy(program, dir.file("root/bin/sh")).unwrap();
    }
    tar("root", "archive/layer.tar");
    dir.write("archive/settings.json", settings);
    let manifest = r#"[{"Config": "settings.json", "RepoTags": ["hotring:0.1.0"], "Layers": ["layer.tar"]}]"#;
    dir.write("archive/manifest.json", manifest);
    tar("archive", "hotring.tar");
    dir.file("hotring.tar")
}

/// What deploy/check-image.sh says of it, and whether it is content.
pub(crate) fn look(archive: &str, more: &[&str]) -> (bool, String) {
    run(Command::new(deploy("check-image.sh")).args(more).arg(archive))
}
