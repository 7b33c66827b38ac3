//! The packages: the same files in both formats, units that systemd accepts and that are closed to what
//! they do not need, an installation that respects the operator and leaves nothing behind.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tests::{
    Done,
    world::{haul, root},
};

/// The most that `systemd-analyze security` may find, in tenths.
const EXPOSURE: &str = "30";

fn run(program: impl AsRef<Path>, args: &[&str]) -> Done {
    let output = Command::new(program.as_ref()).args(args).output();
    output.unwrap_or_else(|e| panic!("{} does not start: {e}", program.as_ref().display())).into()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The `.deb` and the `.rpm` of this version of the program that the tests run.
fn build(dir: &Path, version: &str) -> (PathBuf, PathBuf) {
    let program = haul();
    let args = ["--out", text(dir), "--binary", text(&program), "--version", version, "--level", "0"];
    let printed = run(root().join("packaging/build"), &args).ok();
    let of = |ending: &str| {
        let line = printed.lines().find(|line| line.ends_with(ending));
        PathBuf::from(line.unwrap_or_else(|| panic!("no {ending}: {printed}")))
    };
    (of(".deb"), of(".rpm"))
}

/// The files of a `.deb`, without directories.
fn files_of(deb: &Path) -> BTreeSet<String> {
    let listed = run("dpkg-deb", &["--contents", text(deb)]).ok();
    let files = listed.lines().filter(|line| !line.starts_with('d'));
    let path =
        |line: &str| line.split_whitespace().nth(5).map(|path| path.trim_start_matches('.').to_owned());
    files.map(|line| path(line).expect("a path")).collect()
}

#[test]
fn both_packages_hold_the_same_files_and_are_made_again_to_the_byte() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (deb, rpm) = build(&dir.path().join("first"), "1.2.3-rc.1");
    let again = build(&dir.path().join("second"), "1.2.3-rc.1");
    for (one, other) in [(&deb, &again.0), (&rpm, &again.1)] {
        let name = one.file_name().expect("a name").display();
        assert!(fs::read(one).expect("read") == fs::read(other).expect("read"), "{name} differs");
    }

    let files = files_of(&deb);
    let listed =
        run("rpm", &["-qp", "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]", text(&rpm)]).ok();
    let of_rpm = listed.lines().filter(|line| !line.starts_with('d')).filter_map(|line| line.split_once(' '));
    let of_rpm: BTreeSet<String> = of_rpm.map(|(_, path)| path.to_owned()).collect();
    assert_eq!(files, of_rpm);
    for wanted in [
        "/etc/haul/agent.toml",
        "/usr/bin/haul",
        "/usr/lib/systemd/system/haul-agent.service",
        "/usr/lib/systemd/system/haul-guard.service",
        "/usr/lib/systemd/system/haul.slice",
        "/usr/lib/sysusers.d/haul.conf",
        "/usr/lib/tmpfiles.d/haul.conf",
        "/usr/share/bash-completion/completions/haul",
        "/usr/share/doc/haul/copyright",
        "/usr/share/doc/haul/examples/haul-scale@.timer",
        "/usr/share/doc/haul/licenses.gz",
        "/usr/share/man/man1/haul.1.gz",
        "/usr/share/man/man1/haul-agent.1.gz",
        "/usr/share/haul/haul-scale",
    ] {
        assert!(files.contains(wanted), "{wanted} is not in {files:#?}");
    }

    // What an operator changes is kept, in both; a pre-release comes before the release.
    let config = "/etc/haul/agent.toml\n";
    assert_eq!(run("dpkg-deb", &["--info", text(&deb), "conffiles"]).ok(), config);
    assert_eq!(run("rpm", &["-qp", "--configfiles", text(&rpm)]).ok(), config);
    assert_eq!(run("dpkg-deb", &["--field", text(&deb), "Version"]).ok(), "1.2.3~rc.1\n");
    let depends = run("dpkg-deb", &["--field", text(&deb), "Depends"]).ok();
    assert!(depends.starts_with("libc6 (>= 2.") && depends.ends_with("), libgcc-s1\n"), "{depends}");
}

/// A tree that knows of no package; dpkg runs the scripts of one outside of it and tells them where it is.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = tempfile::tempdir().expect("temporary directory");
        for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
            fs::create_dir_all(tree.path().join(dir)).expect("made");
        }
        fs::write(tree.path().join("var/lib/dpkg/status"), "").expect("written");
        Self(tree)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dpkg(&self, args: &[&str]) -> String {
        let root = format!("--root={}", text(self.0.path()));
        let forced = "--force-script-chrootless,depends,not-root,bad-path";
        let all = [&[root.as_str(), forced, "--log=/dev/null"], args].concat();
        run("dpkg", &all).ok()
    }

    /// Everything below it whose name has `haul` in it.
    fn left(&self) -> String {
        let found = run("find", &[text(self.0.path()), "-mindepth", "1", "-name", "*haul*"]);
        found.ok()
    }
}

#[test]
fn an_upgrade_keeps_what_the_operator_changed_and_a_purge_leaves_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (old, _) = build(dir.path(), "1.0.0");
    let (new, _) = build(dir.path(), "1.0.1");
    let tree = Tree::new();

    tree.dpkg(&["--install", text(&old)]);
    let enabled = tree.path("etc/systemd/system/multi-user.target.wants");
    for unit in ["haul-agent.service", "haul-guard.service"] {
        assert!(enabled.join(unit).symlink_metadata().is_ok(), "{unit} is not enabled");
    }
    assert!(fs::read_to_string(tree.path("etc/group")).expect("a file").starts_with("haul:x:"));

    let config = tree.path("etc/haul/agent.toml");
    let changed = fs::read_to_string(&config).expect("a file") + "max_jobs = 2\n";
    fs::write(&config, &changed).expect("written");
    fs::remove_file(enabled.join("haul-agent.service")).expect("disabled");
    tree.dpkg(&["--install", text(&new)]);
    assert_eq!(fs::read_to_string(&config).expect("a file"), changed);
    assert!(enabled.join("haul-agent.service").symlink_metadata().is_err(), "it is enabled again");

    // A removal keeps what a purge does not.
    let kept =
        ["etc/haul/secrets/TOKEN", "var/lib/haul/outputs", "etc/systemd/system/haul-agent.service.d/a.conf"];
    for path in kept.map(|path| tree.path(path)) {
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, "x").expect("written");
    }
    tree.dpkg(&["--remove", "haul"]);
    assert!(!tree.path("usr/bin/haul").exists());
    assert!(config.exists() && kept.iter().all(|path| tree.path(path).exists()));
    tree.dpkg(&["--purge", "haul"]);
    assert_eq!(tree.left(), "");
    assert_eq!(fs::read_to_string(tree.path("etc/group")).expect("a file"), "");
}

/// The units and their example drop-ins, as on a host that has this program.
fn units() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let put = |from: &str, to: &str| {
        let unit = fs::read_to_string(root().join("systemd").join(from)).expect("a unit");
        let path = dir.path().join(to);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, unit.replace("/usr/bin/haul", text(&haul()))).expect("written");
    };
    for unit in ["haul-agent.service", "haul-guard.service", "haul.slice"] {
        put(unit, unit);
    }
    for unit in ["mnt-data.mount", "mnt-data.automount"] {
        put(&format!("examples/{unit}"), unit);
    }
    put("examples/poweroff.conf", "haul-agent.service.d/poweroff.conf");
    put("examples/haul-slice-limits.conf", "haul.slice.d/limits.conf");
    dir
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let dir = units();
    for unit in
        ["haul-agent.service", "haul-guard.service", "haul.slice", "mnt-data.mount", "mnt-data.automount"]
    {
        let done = run("systemd-analyze", &["verify", "--man=no", text(&dir.path().join(unit))]);
        // It also speaks of other units of this machine.
        let said: Vec<&str> = done
            .stderr
            .lines()
            .filter(|line| line.contains(text(dir.path())) || line.contains("haul"))
            .collect();
        assert!(done.code == 0 && said.is_empty(), "{unit}: {done:?}");
    }
}

#[test]
fn what_a_service_leaves_open_is_little_and_has_a_reason_beside_it() {
    let dir = units();
    for unit in ["haul-agent.service", "haul-guard.service"] {
        let path = dir.path().join(unit);
        let security =
            |flag: &str| run("systemd-analyze", &["security", "--offline=true", flag, text(&path)]);
        let done = security(&format!("--threshold={EXPOSURE}"));
        assert_eq!(done.code, 0, "{unit}: {}", done.stdout.lines().last().unwrap_or_default());
        let findings: Vec<Value> = serde_json::from_str(&security("--json=short").stdout).expect("JSON");
        let shipped = fs::read_to_string(&path).expect("a unit");
        for finding in findings.iter().filter(|finding| finding["exposure"].is_string()) {
            let name = finding["name"].as_str().expect("a name");
            let setting = name.split_inclusive('=').next().expect("a setting");
            assert!(shipped.contains(setting), "{unit} does not say why {name} is open");
        }
    }
}

#[test]
fn what_clouds_are_told_is_what_cloud_init_takes() {
    // The schema of Debian's package, put there by tests/run; the package itself would take over the
    // machine at its next boot.
    let schema = root().join(".cache/cloud-init/schema-cloud-config-v1.json");
    let check = "import json, sys, jsonschema, yaml\n\
        schema = json.load(open(sys.argv[1]))\n\
        told = yaml.safe_load(open(sys.argv[2]))\n\
        for error in jsonschema.Draft4Validator(schema).iter_errors(told): print(error.message)\n\
        unknown = set(told) - set(schema['properties'] if 'properties' in schema else told)\n\
        if unknown: print('unknown', unknown)\n\
        open(sys.argv[3], 'w').write('\\n'.join(told['runcmd']))\n";
    let dir = tempfile::tempdir().expect("temporary directory");
    for cloud in ["aws", "gcp", "azure"] {
        let told = root().join(format!("packaging/cloud-init/{cloud}.yaml"));
        assert!(fs::read_to_string(&told).expect("a file").starts_with("#cloud-config\n"));
        let script = dir.path().join(cloud);
        let found = run("/usr/bin/python3", &["-c", check, text(&schema), text(&told), text(&script)]).ok();
        assert_eq!(found, "", "{cloud}");
        run("shellcheck", &["--shell=sh", text(&script)]).ok();
    }
}

/// Runs what a cloud's machine is told to run, on commands that only note how they are called and fail so many times
/// where that fits this pattern of the shell. Whether it succeeds, and what was called.
fn runs(cloud: &str, fails: &str, times: u32) -> (bool, Vec<String>) {
    let told = root().join(format!("packaging/cloud-init/{cloud}.yaml"));
    let read = "import sys, yaml; print('\\n'.join(yaml.safe_load(open(sys.argv[1]))['runcmd']))";
    let script = run("/usr/bin/python3", &["-c", read, text(&told)]).ok();
    let dir = tempfile::tempdir().expect("temporary directory");
    let stub = "#!/bin/sh\n\
        dir=${0%/*} called=\"${0##*/} $*\"\n\
        echo \"$called\" >>\"$dir/called\"\n\
        case $called in $FAILS) ;; *) exit 0 ;; esac\n\
        echo >>\"$dir/failed\"\n\
        n=0; while read -r _; do n=$((n + 1)); done <\"$dir/failed\"\n\
        [ \"$n\" -gt \"$TIMES\" ]\n";
    let names = "apt-get aws curl dpkg gcloud python3 rm sed shutdown sleep systemctl tar";
    for name in names.split(' ') {
        let path = dir.path().join(name);
        fs::write(&path, stub).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }
    // As cloud-init does it; and no command but these is found.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).env_clear().env("PATH", dir.path());
    let done: Done =
        command.env("FAILS", fails).env("TIMES", times.to_string()).output().expect("starts").into();
    assert!(!done.stderr.contains("not found"), "{done:?}");
    let called = fs::read_to_string(dir.path().join("called")).expect("a file");
    (done.code == 0, called.lines().map(str::to_owned).collect())
}

#[test]
fn a_machine_on_which_haul_cannot_be_installed_powers_itself_off() {
    let asked = |called: &[String], what: &str| called.iter().filter(|call| call.starts_with(what)).count();
    for (cloud, fetch) in [("aws", "aws s3 cp *"), ("gcp", "gcloud *"), ("azure", "curl * -o *")] {
        let (well, called) = runs(cloud, "nothing", 0);
        assert!(
            well && asked(&called, "shutdown") == 0 && asked(&called, "sleep") == 0,
            "{cloud}: {called:#?}"
        );
        for step in [fetch, "apt-get * update", "apt-get * nfs-common", "apt-get * /run/haul.deb"] {
            let (well, called) = runs(cloud, step, 2);
            assert!(well && asked(&called, "shutdown") == 0, "{cloud}, {step} twice: {called:#?}");
            assert_eq!(asked(&called, "sleep"), 2, "{cloud}, {step}");
        }
        for step in [fetch, "apt-get * update", "tar *", "systemctl enable *", "apt-get * /run/haul.deb"] {
            let (well, called) = runs(cloud, step, u32::MAX);
            assert!(!well, "{cloud}, {step}");
            // Once, and as the last thing that is done.
            assert!(
                called.last().is_some_and(|call| call.starts_with("shutdown -P +10 ")),
                "{cloud}: {called:#?}"
            );
            assert_eq!(asked(&called, "shutdown"), 1, "{cloud}, {step}");
        }
    }
}
