//! All hosts of a run, and which of them are gone.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    node::{Server, Services},
    world::{World, lock},
};

/// The fleet of one run.
pub struct Fleet {
    /// What all hosts share.
    pub services: Services,
    servers: Vec<Arc<Server>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dead: Vec<bool>,
    /// No more faults.
    over: bool,
    disturbed: Duration,
}

impl Fleet {
    /// A fleet of these hosts, all started.
    pub fn new(services: Services, servers: Vec<Arc<Server>>) -> Arc<Self> {
        servers.iter().for_each(Server::boot);
        let state = State { dead: vec![false; servers.len()], ..State::default() };
        Arc::new(Self { services, servers, state: Mutex::new(state) })
    }

    /// The run.
    pub fn world(&self) -> &World {
        &self.services.world
    }

    /// A host.
    pub fn server(&self, node: usize) -> Arc<Server> {
        self.servers[node].clone()
    }

    fn is_dead(&self, server: &Server) -> bool {
        let at = self.servers.iter().position(|other| other.host.name == server.host.name);
        at.is_none_or(|at| lock(&self.state).dead[at])
    }

    /// Once the host's agent is down, starts it again after this time; not if it never goes down
    /// before the faults are over.
    pub async fn revive(&self, server: Arc<Server>, down: Duration) {
        while server.host.is_up() {
            if lock(&self.state).over {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(down).await;
        if !server.host.is_up() && !self.is_dead(&server) {
            server.boot();
        }
    }

    /// Ends a host for good, unless it is the last one.
    pub fn kill(&self, node: usize) {
        let mut state = lock(&self.state);
        if state.dead.iter().filter(|dead| !**dead).count() < 2 || state.dead[node] {
            return;
        }
        state.dead[node] = true;
        drop(state);
        let server = &self.servers[node];
        server.host.crash();
        self.world().watch().died(&server.host.name);
        self.world().note(&server.host.name, "is gone for good");
    }

    /// A service that all use was out of order until now.
    pub fn disturbed(&self) {
        lock(&self.state).disturbed = self.world().elapsed();
    }

    /// Undoes all faults, and starts every agent that is down.
    pub fn heal(&self) {
        self.world().note("fleet", "no more faults");
        *self.world().toxics() = crate::toxics::Toxics::default();
        self.disturbed();
        lock(&self.state).over = true;
        for server in &self.servers {
            if server.host.is_still() {
                server.stand_still(false);
            }
            server.host.heal();
            server.machine.set_engine(false, false);
            if !server.host.is_up() && !self.is_dead(server) {
                server.boot();
            }
        }
    }

    /// Looks at what can be broken at any time.
    pub fn check(&self) {
        let (disturbed, now) = (lock(&self.state).disturbed, self.world().elapsed());
        let stormy = self.world().toxics().any();
        let calm = |host: &str| {
            let server = self.servers.iter().find(|server| server.host.name == host);
            let own = server.map_or(now, |server| server.host.troubled());
            if stormy { now } else { own.max(disturbed) }
        };
        let bound = self.services.settings.lease.0 * 2;
        let mut watch = self.world().watch();
        watch.check_doubles(self.world());
        watch.check_owners(self.world(), bound, calm);
    }

    /// The containers that are left on hosts that are not gone.
    pub fn containers(&self) -> Vec<String> {
        let here = self.servers.iter().filter(|server| !self.is_dead(server));
        here.flat_map(|server| server.machine.names()).collect()
    }
}
