//! A Redis of its own for one test.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Debian's `redis-server` on a port of its own. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn start() -> Server {
        // Another process may take the port that was free.
        (0..10).find_map(|_| Server::on(free_port())).expect("a server comes up")
    }

    fn on(port: u16) -> Option<Server> {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let mut server = Server { child, port, _folder: folder };
        let started = Instant::now();
        while server.child.try_wait().unwrap().is_none() {
            let info = server.command(&["INFO", "server"]);
            if info.contains(&format!("process_id:{}\r", server.child.id())) {
                return Some(server);
            }
            assert!(started.elapsed() < Duration::from_secs(30), "it does not come up: {info}");
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    pub(crate) fn command(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
