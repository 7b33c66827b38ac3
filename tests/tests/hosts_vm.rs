//! Hosts with a kernel of their own: what cloud-init, NFS and version 2 of control groups are needed for.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tests::{
    Histories, Machine, Site, Vm, at_once, eventually, last,
    machine::GATEWAY,
    site::{MOUNTED, VERSIONS, counted, from_vm, package},
    user_data, within,
    world::root,
};

/// Emulated, and two of them at once on two cores.
const PATIENCE: Duration = Duration::from_secs(240);

/// Lets cloud-init do what it does at a machine's first boot.
fn first_boot(vm: &Vm, user_data: &str, env: &str) {
    let seed = "/var/lib/cloud/seed/nocloud";
    vm.put(&format!("{seed}/user-data"), user_data.as_bytes());
    vm.put(&format!("{seed}/meta-data"), format!("instance-id: {}\n", vm.name()).as_bytes());
    let stages = ["init --local", "init", "modules --mode=config", "modules --mode=final"];
    for stage in stages {
        vm.ok(&format!("{env}cloud-init {stage}"));
    }
}

#[test]
fn hosts_that_cloud_init_makes_train_from_nfs_into_nfs() {
    let site = Site::new(60);
    let nfs = site.nfs();
    let data = std::env::var_os("DIGITS_DATA").expect("DIGITS_DATA: see tests/run, hosts");
    let csv = std::path::Path::new(&data).join("digits/digits.csv");
    std::fs::create_dir(site.shared("digits")).expect("made");
    std::fs::copy(csv, site.shared("digits/digits.csv")).expect("copied");
    let vms = ["a", "b"].map(Vm::start);
    let lies = site
        .cloud()
        .bucket()
        .put("packages/haul_amd64.deb", std::fs::read(package(VERSIONS[0])).expect("read"));
    let (variables, volume) = (site.variables_of_vm(), "HAUL_VOLUMES=shared=/mnt/data");
    let variables = variables.replace(volume, &format!("{volume},data=/mnt/data:ro:mount"));
    // In place of the instance's role.
    let (_, role) = site.cloud().other_door();
    let role: String =
        role.iter().map(|(name, value)| format!("export {name}={}; ", from_vm(value))).collect();
    at_once(vms.each_ref(), |vm| {
        first_boot(vm, &user_data::for_aws(&variables, &lies, Some(&nfs)), &role);
        vm.until_ready();
    });
    assert_ne!(vms[0].node(), vms[1].node());

    // Two GPUs each: one job for each host.
    let job = root().join("examples/digits/job.toml");
    let args =
        ["submit", "--gpus", "2", "--env", "EPOCHS=8", "--env", "HIDDEN=64"].map(std::ffi::OsString::from);
    let ids = [(); 2]
        .map(|()| site.world().run(args.iter().cloned().chain([job.clone().into()])).ok().trim().to_owned());
    let mut nodes = BTreeSet::new();
    for id in &ids {
        within(PATIENCE, &format!("{id} has trained"), || {
            let state = site.world().state(id);
            assert!(state != "failed", "{}", site.world().run(["logs", id]).stdout);
            (state == "succeeded").then_some(())
        });
        let claims = site.world().events(id, "claimed");
        assert_eq!(claims.len(), 1, "{claims:?}");
        nodes.insert(claims[0]["node"].to_string());
        // What the server's machine has on its disk.
        let output = site.shared(&format!("outputs/{id}"));
        let metrics = std::fs::read(output.join("attempt-1/metrics.json")).expect("metrics");
        let metrics: Value = serde_json::from_slice(&metrics).expect("JSON");
        assert!(metrics["accuracy"].as_f64().is_some_and(|accuracy| accuracy > 0.9), "{metrics}");
        assert!(output.join("checkpoint/digits.pickle").is_file());
        assert!(site.world().run(["logs", id]).ok().contains("epoch 8/8"));
        let stored = site.cloud().bucket().list(&format!("jobs/{id}/attempts/1/log"));
        assert!(!stored.is_empty(), "its log is in the store");
    }
    assert_eq!(nodes.len(), 2, "one on each host");
}

/// What is wrong with a volume, by the fleet's word.
fn problem(site: &Site, volume: &str) -> Option<String> {
    let nodes = site.world().json(["nodes", "--json"]);
    nodes[0]["offer"]["volumes"][volume]["problem"].as_str().map(str::to_owned)
}

#[test]
fn a_server_that_hangs_or_forgets_and_a_power_cut_lose_nothing() {
    let site = Site::new(600);
    let nfs = site.nfs();
    let [vm] = site.vms(["a"], &nfs, &format!("HAUL_VOLUMES=shared={MOUNTED},sets=/mnt/sets:mount\n"));

    // What the server has made anew is not what was mounted.
    let (sets, port) = (site.shared("sets"), nfs.port());
    let mount = format!("mount -t nfs -o nfsvers=4.1,port={port} {GATEWAY}:/data/sets /mnt/sets");
    std::fs::create_dir(&sets).expect("made");
    vm.ok(&format!("mkdir /mnt/sets && {mount}"));
    eventually("it is there", || problem(&site, "sets").is_none().then_some(()));
    std::fs::remove_dir(&sets).and_then(|()| std::fs::create_dir(&sets)).expect("made anew");
    let told = eventually("it is said to be stale", || problem(&site, "sets"));
    assert!(told.contains("the server no longer knows what was mounted"), "{told}");
    vm.ok(&format!("umount -l /mnt/sets && {mount}"));
    eventually("it is well again", || problem(&site, "sets").is_none().then_some(()));

    // Version 2 of control groups keeps devices in a program that whoever sets the group may replace.
    assert_eq!(vm.ok("docker info -f '{{.CgroupVersion}} {{.CgroupDriver}}'"), "2 systemd\n");
    let tries = "until [ -e /shared/stop ]; do for d in nvidia0 nvidia1 nvidiactl; do cat /dev/$d 2>&1; done; sleep 0.2; done";
    let id = site.submit(&json!({ "resources": { "gpus": 2 } }), tries);
    let lines = || site.world().run(["logs", &id]).stdout.lines().map(str::to_owned).collect::<Vec<_>>();
    eventually("it tries", || (lines().len() > 5).then_some(()));
    vm.ok("systemctl daemon-reload");
    let seen = lines().len();
    eventually("it tries on", || (lines().len() > seen + 20).then_some(()));
    let refused: Vec<String> =
        lines().into_iter().filter(|line| !line.contains("No such device or address")).collect();
    assert_eq!(refused, Vec::<String>::new());
    std::fs::write(site.shared("stop"), "").expect("written");
    site.world().until(&id, "succeeded");

    let runs = site.count(60, &json!({}));
    site.until_counted(&runs, 1, 3);
    // The first are the slowest here.
    let quiet = [(); 3].map(|()| vm.slowest_answer(10));
    nfs.hang();
    let told = eventually("the volume is said to be down", || problem(&site, "shared"));
    assert!(told.contains("did not answer"), "{told}");
    let waits = site.count(1, &json!({}));
    let other = site.submit(&json!({ "mounts": [] }), "echo done");
    eventually("why it waits is said", || {
        site.world().run(["status", &waits]).ok().contains("did not answer").then_some(())
    });
    assert_eq!(site.world().state(&waits), "queued");
    let slowest = vm.slowest_answer(10);
    println!(
        "agent status, emulated: {quiet:?} ms at most of ten, {slowest} ms beside an NFS server that hangs"
    );
    // How long it takes on real cores: `hosts_storage`. Here each answered within 5 s.
    let stuck = vm.stuck_threads();
    assert!(stuck.iter().all(|thread| thread == "volume"), "{stuck:?}");
    nfs.go_on();
    for id in [&runs, &waits, &other] {
        within(PATIENCE, &format!("{id} ends"), || (site.world().state(id) == "succeeded").then_some(()));
        assert_eq!(site.world().events(id, "claimed").len(), 1);
    }
    eventually("the volume is well again", || problem(&site, "shared").is_none().then_some(()));
    assert_eq!(site.broken(&runs), Vec::<String>::new());

    let lost = site.count(60, &json!({}));
    site.until_counted(&lost, 1, 5);
    vm.power_off();
    vm.power_on();
    within(PATIENCE, "it ends", || (site.world().state(&lost) == "succeeded").then_some(()));
    let ended = site.world().events(&lost, "ended");
    let why = (&ended[0]["outcome"], &ended[0]["message"]);
    assert_eq!(
        why,
        (&json!("node_lost"), &json!("the host went down while the job ran")),
        "long before the lease"
    );
    assert_eq!((ended.len(), &ended[1]["attempt"]), (2, &json!(2)));
    assert_eq!(site.broken(&lost), Vec::<String>::new());
    assert_eq!(Histories::read(&site.cloud().bucket()).broken(), Vec::<String>::new());
}

#[test]
fn a_fleet_whose_hosts_lose_power_and_network_are_booted_again_and_upgraded_ends_each_job_once() {
    const LEASE: u32 = 20;
    const STEPS: u32 = 60;
    let site = Site::new(LEASE);
    let nfs = site.nfs();
    let [dark, apart] = site.vms(["dark", "apart"], &nfs, "HAUL_CPUS=2\n");
    let gone = dark.node();
    let ids: Vec<String> = (0..4).map(|_| site.count(STEPS, &json!({}))).collect();
    ids.iter().for_each(|id| site.until_counted(id, 1, 3));
    let on = |node: &str| ids.iter().filter(|id| site.ticks(id)[0].node == node).count();
    assert!(on(&gone) > 0 && on(&apart.node()) > 0);
    dark.power_off();
    apart.cut();
    last(Duration::from_secs(2 * u64::from(LEASE)));
    // Those that wait for the server are frozen before they do anything else, which the engine cannot tell.
    let frozen = apart.ok("cat /sys/fs/cgroup/haul.slice/docker-*.scope/cgroup.freeze");
    assert!(frozen.lines().all(|line| line == "1"), "{frozen}");
    apart.join();
    dark.power_on();
    for id in &ids {
        within(PATIENCE, &format!("{id} ends"), || (site.world().state(id) == "succeeded").then_some(()));
        assert_eq!(site.broken(id), Vec::<String>::new());
    }
    let histories = Histories::read(&site.cloud().bucket());
    assert_eq!(histories.broken(), Vec::<String>::new());
    for id in &ids {
        let outcomes: Vec<Value> =
            histories.events(id, "ended").iter().map(|end| end["outcome"].clone()).collect();
        let expected =
            if site.ticks(id)[0].node == gone { &["node_lost", "succeeded"][..] } else { &["succeeded"] };
        assert_eq!(outcomes, expected, "{id}");
    }
    let journal = apart.journal("haul-agent") + &apart.journal("haul-guard");
    for word in ["frozen", "took over a lost node's job"] {
        assert!(journal.contains(word), "the journal does not tell of '{word}':\n{journal}");
    }

    // Handed to each other.
    let again: Vec<String> = (0..2).map(|_| site.count(STEPS, &json!({}))).collect();
    again.iter().for_each(|id| site.until_counted(id, 1, 3));
    for vm in [&dark, &apart] {
        vm.reboot();
        vm.until_ready();
        // A mount that the agent keeps busy is passed over, and hangs systemd once the network is gone.
        let told = vm.ok("journalctl -b -1 -o cat -u haul-agent -u mnt-data.mount");
        let at = |word: &str| told.find(word).unwrap_or_else(|| panic!("no '{word}' in:\n{told}"));
        let steps = ["the machine goes down", "Stopped haul-agent.service", "Unmounting mnt-data.mount"];
        assert!(steps.map(at).is_sorted(), "{told}");
        assert!(!told[at(steps[0])..].contains("must be mounted"), "{told}");
    }
    for id in &again {
        within(PATIENCE, &format!("{id} ends"), || (site.world().state(id) == "succeeded").then_some(()));
        assert_eq!(site.broken(id), Vec::<String>::new());
    }
    assert_eq!(Histories::read(&site.cloud().bucket()).broken(), Vec::<String>::new());
    assert_eq!(dark.journal("haul-agent").matches("-- Boot ").count(), 2);

    // One job on each, while both are brought up to date.
    let during = [(); 2].map(|()| site.count(u32::MAX, &json!({ "resources": { "gpus": 2 } })));
    during.iter().for_each(|id| site.until_counted(id, 1, 3));
    at_once([&dark, &apart], |vm| {
        let before = (vm.containers("running"), vm.property("haul-agent", "MainPID"));
        vm.upgrade(&package(VERSIONS[1]));
        assert_eq!(vm.ok("dpkg-query -W -f '${Version}' haul"), VERSIONS[1]);
        vm.until_ready();
        assert_eq!((vm.containers("running"), before.0.len()), (before.0, 1));
        assert_ne!(vm.property("haul-agent", "MainPID"), before.1, "the new program runs");
    });
    during.iter().for_each(|id| site.enough(id));
    for id in &during {
        within(PATIENCE, &format!("{id} ends"), || (site.world().state(id) == "succeeded").then_some(()));
        let steps = site.ticks(id).last().expect("it counts").count;
        assert_eq!(site.world().run(["logs", id]).ok(), counted(steps), "each line once, in order");
        assert_eq!((site.broken(id), site.world().events(id, "claimed").len()), (Vec::new(), 1));
    }
}
