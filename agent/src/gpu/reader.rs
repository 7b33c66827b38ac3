//! Reading GPUs on a thread that may be lost.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::sync::{Mutex, oneshot};

use super::{GpuError, Gpus, Inventory};

type Answer = oneshot::Sender<Result<Inventory, GpuError>>;

/// Reads GPUs with a deadline. One thread does all the reading: when it hangs, it is waited for
/// at later reads, and no other is started.
pub struct Reader {
    gpus: Arc<dyn Gpus>,
    thread: Mutex<Thread>,
}

#[derive(Default)]
struct Thread {
    requests: Option<mpsc::Sender<Answer>>,
    /// An answer that did not come in time, and may yet.
    late: Option<oneshot::Receiver<Result<Inventory, GpuError>>>,
}

impl Reader {
    /// Reads these.
    pub fn new(gpus: Arc<dyn Gpus>) -> Self {
        Self { gpus, thread: Mutex::default() }
    }

    /// The GPUs as they are now.
    ///
    /// # Errors
    /// [`GpuError::Hung`] after the deadline, and at once while an earlier read still hangs.
    pub async fn read(&self, deadline: Duration) -> Result<Inventory, GpuError> {
        let hung = GpuError::Hung { seconds: deadline.as_secs() };
        let mut thread = self.thread.lock().await;
        if let Some(late) = &mut thread.late {
            match late.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return Err(hung),
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => thread.late = None,
            }
        }
        let (answer, mut answered) = oneshot::channel();
        self.request(&mut thread, answer)?;
        match tokio::time::timeout(deadline, &mut answered).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => {
                thread.requests = None;
                Err(hung)
            }
            Err(_) => {
                thread.late = Some(answered);
                Err(hung)
            }
        }
    }

    fn request(&self, thread: &mut Thread, answer: Answer) -> Result<(), GpuError> {
        let answer = match &thread.requests {
            Some(requests) => match requests.send(answer) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(answer)) => answer,
            },
            None => answer,
        };
        let (requests, requested) = mpsc::channel::<Answer>();
        let gpus = self.gpus.clone();
        let read = move || {
            for answer in requested {
                // Nobody listens any more after the deadline.
                let _ = answer.send(gpus.read());
            }
        };
        let failed =
            |e: std::io::Error| GpuError::Library { library: "thread".into(), detail: e.to_string() };
        std::thread::Builder::new().name("gpus".into()).spawn(read).map_err(failed)?;
        // The thread has just been started and listens.
        let _ = requests.send(answer);
        thread.requests = Some(requests);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex as StdMutex};

    use super::*;

    /// Hangs until it is let go.
    #[derive(Default)]
    struct Hangs {
        hangs: StdMutex<bool>,
        changed: Condvar,
    }

    impl Gpus for Hangs {
        fn read(&self) -> Result<Inventory, GpuError> {
            let mut hangs = self.hangs.lock().expect("no panic");
            while *hangs {
                hangs = self.changed.wait(hangs).expect("no panic");
            }
            Ok(Inventory::default())
        }
    }

    #[tokio::test]
    async fn a_driver_that_hangs_is_left_and_found_again() {
        let gpus = Arc::new(Hangs::default());
        let reader = Reader::new(gpus.clone());
        let soon = Duration::from_millis(50);
        reader.read(soon).await.expect("answers");
        *gpus.hangs.lock().expect("no panic") = true;
        assert!(matches!(reader.read(soon).await, Err(GpuError::Hung { .. })));
        assert!(matches!(reader.read(soon).await, Err(GpuError::Hung { .. })));
        *gpus.hangs.lock().expect("no panic") = false;
        gpus.changed.notify_all();
        let again = async {
            while reader.read(soon).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.expect("answers again");
    }
}
