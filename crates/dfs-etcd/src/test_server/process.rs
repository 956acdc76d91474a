//! A process that does not outlive the test.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use rustix::process::{Pid, Signal, kill_process};

/// A member of etcd. Killed when dropped, and by the kernel when the test process ends.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    pub(super) fn start(namespace: Option<&str>, arguments: &[String], log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        // `nsenter` becomes `setpriv`, which requests the signal and becomes `etcd`. `ip netns exec`
        // would have mounts of its own, and keep disks of other tests in use.
        let mut command = Command::new(if namespace.is_some() { "nsenter" } else { "setpriv" });
        if let Some(namespace) = namespace {
            command.args([format!("--net=/run/netns/{namespace}"), "setpriv".to_owned()]);
        }
        command
            .args(["--pdeathsig", "KILL", "--", "etcd"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        assert!(
            Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok(),
            "tests need the program etcd: apt-get install etcd-server, or cargo xtask verify packages"
        );
        let child = spawn(command);
        Self { child: child.expect("tests need the program setpriv: apt-get install util-linux") }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// Spawns a process from a thread that lasts as long as this process: the kernel kills a child with
/// the thread that started it, and each test has its own thread.
fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, queue) = sync_channel::<Order>(1);
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                drop(answer.send(command.spawn()));
            }
        });
        orders
    });
    let (answer, child) = sync_channel(1);
    starter.send((command, answer)).expect("the thread never ends");
    child.recv().expect("the thread never ends")
}
