//! What sizes groups of machines by `haul demand`, on clouds' commands that only note what they are told.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use shared::demand::Demands;
use tests::{
    Agent, Done, Metadata, World, eventually,
    world::{haul, root},
};

fn file(name: &str) -> PathBuf {
    root().join("packaging/autoscaling").join(name)
}

/// Commands of clouds that note how they are called, and answer what a test says.
struct Clouds(tempfile::TempDir);

impl Clouds {
    fn new() -> Self {
        let clouds = Self(tempfile::tempdir().expect("temporary directory"));
        for (cloud, questions) in [
            ("aws", "describe-auto-scaling-groups"),
            ("gcloud", "describe list-instances"),
            ("az", "show list-instances"),
        ] {
            // What is asked is answered by the file of its name, if there is one, and fails otherwise.
            let script = format!(
                "#!/bin/sh\ncd {dir}\nfor word; do case ' {questions} ' in *\" $word \"*) exec cat \"$word\";; esac; done\n\
                 echo {cloud} \"$*\" >>calls\nif [ -e refuses ]; then exit 1; fi\n",
                dir = clouds.0.path().display(),
            );
            clouds.program(cloud, &script);
        }
        clouds
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }

    fn answers(&self, question: &str, answer: &Value) {
        fs::write(self.path(question), answer.to_string()).expect("written");
    }

    /// Lets `haul demand` say this.
    fn wants(&self, pools: &Value) {
        let demands = json!({ "pools": pools, "unserved": [] });
        let read: Demands = serde_json::from_value(demands.clone()).expect("as haul says it");
        assert_eq!(serde_json::to_value(read).expect("JSON"), demands, "as haul says it");
        self.answers("demand", &demands);
        let script =
            format!("#!/bin/sh\n[ \"$*\" = 'demand --json' ] && cat {}\n", self.path("demand").display());
        self.program("haul", &script);
    }

    /// Runs a script with these commands.
    fn run(&self, script: &str, args: &[&str], env: &[(&str, &str)]) -> Done {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        let mut command = Command::new(file(script));
        command.args(args).env_clear().env("PATH", path).envs(env.iter().copied()).stdin(Stdio::null());
        command.output().expect("starts").into()
    }

    /// What the clouds were told since the last time.
    fn told(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        calls.lines().map(str::to_owned).collect()
    }
}

fn pool(wanted: u32, present: u32, idle: &[&str]) -> Value {
    json!([{ "pool": "burst", "wanted": wanted, "present": present, "idle": idle, "jobs": 0, "why": ["a test"] }])
}

/// An Auto Scaling group with machines `i-0`, `i-1`, and so on, in these states.
fn group(size: u32, max: u32, states: &[&str]) -> Value {
    let machines = states.iter().enumerate().map(|(n, state)| {
        json!({ "InstanceId": format!("i-{n}"), "LifecycleState": state, "ProtectedFromScaleIn": true })
    });
    let machines: Vec<Value> = machines.collect();
    json!({ "AutoScalingGroups": [{ "AutoScalingGroupName": "g", "DesiredCapacity": size, "MinSize": 0, "MaxSize": max,
        "Instances": machines }] })
}

const GROWS: &str = "aws autoscaling set-desired-capacity --auto-scaling-group-name g --desired-capacity ";
const ENDS: &str = "aws autoscaling terminate-instance-in-auto-scaling-group --should-decrement-desired-capacity --instance-id ";

fn on_aws(wants: &Value, group: &Value) -> Vec<String> {
    let clouds = Clouds::new();
    clouds.wants(wants);
    clouds.answers("describe-auto-scaling-groups", group);
    clouds.run("haul-scale", &["aws", "burst=g"], &[]).ok();
    clouds.told()
}

#[test]
fn a_group_grows_to_what_is_wanted_and_no_further_than_it_may() {
    assert_eq!(on_aws(&pool(3, 1, &[]), &group(1, 9, &["InService"])), [format!("{GROWS}3")]);
    assert_eq!(on_aws(&pool(3, 1, &[]), &group(1, 2, &["InService"])), [format!("{GROWS}2")]);
    // Those that are being started count: asking again starts no more.
    assert!(on_aws(&pool(3, 1, &[]), &group(3, 9, &["InService", "Pending", "Pending"])).is_empty());
}

#[test]
fn a_group_shrinks_by_machines_without_jobs_alone() {
    let three = ["InService", "InService", "InService"];
    let end = |id: &str| format!("{ENDS}{id}");
    // In the order of haul, which names first what has been idle the longest.
    assert_eq!(on_aws(&pool(1, 3, &["i-2", "i-0"]), &group(3, 9, &three)), [end("i-2"), end("i-0")]);
    // Fewer are wanted, but who is to go is not known yet: nobody is made to choose.
    assert!(on_aws(&pool(1, 3, &[]), &group(3, 9, &three)).is_empty());
    // What somebody has told to end, or what is no machine of this group, is left alone.
    let ending = group(2, 9, &["Terminating:Wait", "InService", "InService"]);
    assert_eq!(on_aws(&pool(1, 3, &["i-0", "i-1", "desk"]), &ending), [end("i-1")]);
    assert!(on_aws(&pool(1, 3, &["i-0", "desk"]), &ending).is_empty());
    // A group is not emptied below its own least size, which would be refused.
    let mut least = group(3, 9, &three);
    least["AutoScalingGroups"][0]["MinSize"] = 2.into();
    assert_eq!(on_aws(&pool(0, 3, &["i-2", "i-0", "i-1"]), &least), [end("i-2")]);
}

#[test]
fn groups_of_google_cloud_are_sized_by_names_and_ids() {
    let clouds = Clouds::new();
    let vm = |name: &str, id: &str, action: &str| {
        json!({ "instance": format!("https://www.googleapis.com/compute/v1/projects/p/zones/z/instances/{name}"),
            "id": id, "currentAction": action, "instanceStatus": "RUNNING" })
    };
    clouds.answers("describe", &json!({ "name": "g", "targetSize": 3 }));
    clouds.answers(
        "list-instances",
        &json!([
            vm("train-1", "4567890123456789012", "NONE"),
            vm("train-2", "11", "NONE"),
            vm("train-3", "12", "DELETING"),
        ]),
    );
    // One of the same name was there before.
    clouds.wants(&pool(0, 3, &["train-3-12", "train-2-10", "train-2-11", "train-1-4567890123456789012"]));
    let said = clouds.run("haul-scale", &["gcp", "burst=europe-west4-a/g"], &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        clouds.told(),
        ["gcloud compute instance-groups managed delete-instances g --zone=europe-west4-a --quiet \
          --instances=train-2,train-1 --skip-instances-on-validation-error"]
    );
    clouds.wants(&pool(5, 3, &[]));
    clouds.run("haul-scale", &["gcp", "burst=europe-west4/g"], &[]).ok();
    let grows = "gcloud compute instance-groups managed resize g --region=europe-west4 --quiet --size=5";
    assert_eq!(clouds.told(), [grows]);
}

#[test]
fn scale_sets_of_azure_are_sized_by_names_and_ids() {
    let clouds = Clouds::new();
    clouds.answers(
        "show",
        &json!({ "name": "set", "sku": { "capacity": 2, "name": "Standard_NC24ads_A100_v4" } }),
    );
    clouds.answers("list-instances", &json!([
        { "instanceId": "0", "name": "set_0", "provisioningState": "Succeeded", "vmId": "02AAB8A4-74EF-476E-8182-F6D2BA4166A6" },
        { "instanceId": "1", "name": "set_1", "provisioningState": "Deleting", "vmId": "12aab8a4-74ef-476e-8182-f6d2ba4166a6" },
    ]));
    clouds.wants(&pool(0, 2, &["set_1-12aab8a4", "set_0-02aab8a4"]));
    clouds.run("haul-scale", &["azure", "burst=rg/set"], &[]).ok();
    let set = "--resource-group rg --name set --only-show-errors";
    assert_eq!(clouds.told(), [format!("az vmss delete-instances {set} --instance-ids 0 --no-wait")]);
    clouds.wants(&pool(4, 2, &[]));
    clouds.run("haul-scale", &["azure", "burst=rg/set"], &[]).ok();
    assert_eq!(clouds.told(), [format!("az vmss scale {set} --new-capacity 4 --no-wait")]);
}

#[test]
fn what_cannot_be_known_is_not_acted_on_and_said() {
    let clouds = Clouds::new();
    clouds.answers("describe-auto-scaling-groups", &group(0, 9, &[]));
    let scale = |args: &[&str]| clouds.run("haul-scale", args, &[]);
    clouds.program("haul", "#!/bin/sh\necho 'error: the store does not answer' >&2\nexit 1\n");
    let silent = scale(&["aws", "burst=g"]);
    assert!(silent.code == 1 && silent.stderr.contains("does not answer"), "{silent:?}");
    clouds.wants(&pool(1, 0, &[]));
    // One that fails does not keep the others from their turn.
    let unknown = scale(&["aws", "typo=g", "burst=g"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("no pool typo"), "{unknown:?}");
    assert_eq!(clouds.told(), [format!("{GROWS}1")]);
    clouds.answers("describe-auto-scaling-groups", &json!({ "AutoScalingGroups": [] }));
    let gone = scale(&["aws", "burst=g"]);
    assert!(gone.code == 1 && gone.stderr.contains("g cannot be read"), "{gone:?}");
    for bad in [&["aws"][..], &["ibm", "burst=g"], &["aws", "burst"], &[]] {
        assert_eq!(scale(bad).code, 2, "{bad:?}");
    }
    assert!(clouds.told().is_empty());
    clouds.answers("describe-auto-scaling-groups", &group(0, 9, &[]));
    let dry = scale(&["--dry-run", "aws", "burst=g"]);
    assert!(dry.code == 0 && dry.stderr.contains(&format!("would run: {GROWS}1")), "{dry:?}");
    assert!(clouds.told().is_empty());
    fs::write(clouds.path("refuses"), "").expect("written");
    let refused = scale(&["aws", "burst=g"]);
    assert!(refused.code == 1 && refused.stderr.contains("g does not grow"), "{refused:?}");
    // One that cannot be ended does not keep the others.
    assert_eq!(clouds.told(), [format!("{GROWS}1")]);
    clouds.wants(&pool(0, 2, &["i-0", "i-1"]));
    clouds.answers("describe-auto-scaling-groups", &group(2, 9, &["InService", "InService"]));
    let refused = scale(&["aws", "burst=g"]);
    assert!(refused.code == 1 && refused.stderr.contains("could be ended"), "{refused:?}");
    assert_eq!(clouds.told(), [format!("{ENDS}i-0"), format!("{ENDS}i-1")]);
}

#[test]
fn a_fleet_s_own_demand_starts_a_machine_and_ends_it() {
    const POOLS: &str = r#"pools={"burst": {"labels": {"pool": "burst"}, "cpus": 1, "memory": "1GiB", "min": MIN, "max": 2,
        "keep_idle": "1s"}}"#;
    let world = World::new();
    let clouds = Clouds::new();
    symlink(haul(), clouds.path("haul")).expect("linked");
    let fleet = world.fleet();
    let scale = || {
        let home = world.path("home");
        let env = [("HAUL_FLEET", fleet.as_str()), ("HOME", home.to_str().expect("text"))];
        clouds.run("haul-scale", &["aws", "burst=g"], &env).ok();
        clouds.told()
    };
    let demand = world.json(["demand", "--json"]);
    let read: Demands = serde_json::from_value(demand.clone()).expect("as it is said here");
    assert_eq!(serde_json::to_value(read).expect("JSON"), demand);

    world.run(["fleet", "set", &POOLS.replace("MIN", "1")]).ok();
    clouds.answers("describe-auto-scaling-groups", &group(0, 2, &[]));
    assert_eq!(scale(), [format!("{GROWS}1")]);
    clouds.answers("describe-auto-scaling-groups", &group(1, 2, &["InService"]));
    assert!(scale().is_empty(), "it is being started");
    let _agent = Agent::start(&world, "i-0", &["--label", "pool=burst"]);
    assert!(scale().is_empty(), "it is there");
    world.run(["fleet", "set", &POOLS.replace("MIN", "0")]).ok();
    let ended =
        eventually("it has been idle for long enough", || Some(scale()).filter(|told| !told.is_empty()));
    assert_eq!(ended, [format!("{ENDS}i-0")]);
    clouds.answers("describe-auto-scaling-groups", &group(0, 2, &["Terminating:Wait"]));
    assert!(scale().is_empty(), "it is being ended");
}

#[test]
fn a_hook_is_completed_when_the_machine_is_to_go_and_not_before() {
    let clouds = Clouds::new();
    let metadata = Metadata::aws();
    metadata.set("/latest/meta-data/instance-id", "i-0");
    metadata.set("/latest/meta-data/placement/region", "eu-central-1");
    metadata.set("/latest/meta-data/autoscaling/target-lifecycle-state", "InService");
    let url = metadata.url();
    let done = || clouds.run("haul-hook-done", &["g", "hook"], &[("HAUL_METADATA_URL", &url)]);
    done().ok();
    assert!(clouds.told().is_empty());
    metadata.set("/latest/meta-data/autoscaling/target-lifecycle-state", "Terminated");
    done().ok();
    assert_eq!(
        clouds.told(),
        ["aws autoscaling complete-lifecycle-action --auto-scaling-group-name g --lifecycle-hook-name hook \
          --instance-id i-0 --lifecycle-action-result CONTINUE --region eu-central-1"]
    );
}

#[test]
fn systemd_accepts_the_units() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // Programs must be there to be accepted.
    let copy = |from: &Path, to: &str| {
        let text = fs::read_to_string(from).expect("read");
        let text = text.replace("/usr/share/haul/haul-", "/bin/true ").replace("/usr/bin/haul", "/bin/true");
        let path = dir.path().join(to);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("made");
        fs::write(&path, text).expect("written");
        path
    };
    let service = copy(&file("haul-scale@.service"), "haul-scale@.service");
    let timer = copy(&file("haul-scale@.timer"), "haul-scale@.timer");
    let agent = copy(&root().join("systemd/haul-agent.service"), "haul-agent.service");
    copy(&root().join("systemd/haul.slice"), "haul.slice");
    let hook = copy(&file("lifecycle-hook.conf"), "haul-agent.service.d/lifecycle-hook.conf");
    assert!(fs::read_to_string(hook).expect("read").contains("ExecStopPost=+-/bin/true hook-done"));
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args([service, timer, agent]);
    let said: Done = verify.output().expect("starts").into();
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
}
