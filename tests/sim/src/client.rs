//! People and programs that use the fleet: they submit, cancel and retry, give up or try again,
//! and their computers crash as well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shared::{
    client::{Cancel, Client, ClientError},
    id::JobId,
    job::JobSpec,
    log::Author,
};

use crate::{clock::HostClock, host::Host, node::Services};

/// What somebody wants of a fleet.
#[derive(Debug, Clone)]
pub enum Wish {
    /// A job to be run.
    Submit(JobId, Box<JobSpec>),
    /// A job to be stopped.
    Cancel(JobId),
    /// A finished job to be run again.
    Retry(JobId),
}

/// A computer with a client.
pub struct Desk {
    /// The computer.
    pub host: Arc<Host>,
    services: Services,
    /// Whether somebody still wants something here.
    busy: AtomicBool,
}

impl Desk {
    /// A computer of this name.
    pub fn new(name: &str, services: &Services) -> Arc<Self> {
        let host = Host::new(name, &services.world);
        Arc::new(Self { host, services: services.clone(), busy: AtomicBool::new(false) })
    }

    /// Whether something is being done here.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) && self.host.is_up()
    }

    /// A client that has just been started here.
    pub fn client(&self) -> Client {
        let life = self.host.start();
        let clock = Arc::new(HostClock::new(&self.host, chrono::TimeDelta::zero(), 0.0));
        let author = Author::Client(self.host.name.clone());
        Client::new(self.services.fleet(&self.host, life), author, clock, self.services.world.chance())
    }

    /// Does what is wanted, and again after an error. Never returns where its computer crashes.
    pub async fn fulfil(&self, wish: Wish) {
        let client = self.client();
        self.busy.store(true, Ordering::Relaxed);
        for _ in 0..20 {
            match self.attempt(&client, &wish).await {
                Ok(()) => break,
                Err(error) => self.services.world.note(&self.host.name, format_args!("hears: {error}")),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        self.busy.store(false, Ordering::Relaxed);
    }

    async fn attempt(&self, client: &Client, wish: &Wish) -> Result<(), ClientError> {
        let world = &self.services.world;
        match wish {
            Wish::Submit(id, spec) => {
                client.submit((**spec).clone(), Some(id.clone())).await?;
                world.note(&self.host.name, format_args!("is told that {id} is submitted"));
                world.watch().jobs.entry(id.clone()).or_default().acknowledged = true;
            }
            Wish::Cancel(id) => match client.cancel(id, None).await {
                Ok(Cancel::Done | Cancel::Requested | Cancel::WasFinished)
                | Err(ClientError::NotFound(_)) => {}
                Err(error) => return Err(error),
            },
            Wish::Retry(id) => match client.retry(id).await {
                Ok(_) | Err(ClientError::NotFound(_) | ClientError::NotFinished { .. }) => {}
                Err(error) => return Err(error),
            },
        }
        Ok(())
    }
}
