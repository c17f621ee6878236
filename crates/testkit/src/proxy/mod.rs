//! A TCP proxy that loses a COMMIT, or the answer to it, on purpose.
//!
//! It reads the message framing of both directions, so that it cuts between messages and not
//! somewhere inside one. A cut after a COMMIT waits until the server has answered it: the
//! transaction is then committed for certain, and the client cannot know. TLS ends this: once a
//! server agrees to encrypt, the proxy passes bytes on and only delays, freezes and
//! [`FaultProxy::cut_now`] still work.

mod control;
mod link;
mod statement;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::KitError;
use crate::url::ServerUrl;
use control::Control;

/// Where to cut a connection. Each is used once, by the first connection that gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees the COMMIT, and rolls back.
    BeforeCommit,
    /// The server commits; the client never sees the answer.
    AfterCommit,
    /// The server never sees the first statement whose text contains this one.
    BeforeStatement(String),
}

/// Stands between clients and a server; ends, with all its connections, when dropped.
pub struct FaultProxy {
    control: Arc<Control>,
    url: ServerUrl,
    accepting: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Listens on a free port of 127.0.0.1 and passes everything on to the server of this URL.
    pub fn start(server_url: &str) -> Result<Self, KitError> {
        let doing = "start a fault proxy";
        let server = ServerUrl::parse(server_url)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(KitError::while_doing(doing))?;
        let own = listener.local_addr().map_err(KitError::while_doing(doing))?;
        let url = ServerUrl { host: own.ip().to_string(), port: own.port(), ..server.clone() };
        let control = Arc::new(Control::default());
        let shared = Arc::clone(&control);
        let accepting = thread::spawn(move || accept(&listener, &server, &shared));
        Ok(Self { control, url, accepting: Some(accepting) })
    }

    /// The server's URL, leading through the proxy.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Cuts at the first such moment from now on.
    pub fn cut(&self, cut: Cut) {
        self.cut_at(cut, 1);
    }

    /// Cuts at the nth such moment from now on, counted over all connections, from 1.
    pub fn cut_at(&self, cut: Cut, nth: u32) {
        self.control.arm(cut, nth);
    }

    /// Waits until the cut has happened; false when it has not within `limit`.
    pub fn wait_for_cut(&self, limit: Duration) -> bool {
        self.control.wait_for_cut(limit)
    }

    /// How many cuts have happened, those of [`FaultProxy::cut_now`] left out.
    pub fn cuts(&self) -> u32 {
        self.control.cuts()
    }

    /// How many COMMITs went through to the server.
    pub fn commits(&self) -> u32 {
        self.control.commits()
    }

    /// How many connections the proxy has passed on since it started.
    pub fn connections(&self) -> u32 {
        self.control.connections()
    }

    /// How many requests to cancel a statement the proxy has passed on, those under TLS left out.
    pub fn cancels(&self) -> u32 {
        self.control.cancels()
    }

    /// Cuts every open connection at once.
    pub fn cut_now(&self) {
        self.control.close_all();
    }

    /// Delays each direction by this much, as a longer way would: what follows is not held up.
    pub fn delay(&self, to_server: Duration, to_client: Duration) {
        self.control.set_delay(to_server, to_client);
    }

    /// Passes nothing on, in either direction, and keeps the connections open: a network that
    /// swallows packets.
    pub fn freeze(&self) {
        self.control.set_frozen(true);
    }

    /// Passes on what has piled up since [`FaultProxy::freeze`], and all that follows.
    pub fn thaw(&self) {
        self.control.set_frozen(false);
    }

    /// Whether to close new connections at once, as a server that is down would.
    pub fn refuse(&self, refuse: bool) {
        self.control.set_refusing(refuse);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.control.end();
        // The accepting thread sees the end at its next connection: this one.
        let _woken = TcpStream::connect((self.url.host.as_str(), self.url.port));
        if let Some(accepting) = self.accepting.take() {
            let _ended = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, server: &ServerUrl, control: &Arc<Control>) {
    for client in listener.incoming().flatten() {
        if control.has_ended() {
            return;
        }
        if control.is_refusing() {
            continue;
        }
        let (server, control) = (server.clone(), Arc::clone(control));
        // A connection that cannot be passed on is closed, which tells the client enough.
        thread::spawn(move || pass_on(client, &server, &control).ok());
    }
}

fn pass_on(client: TcpStream, server: &ServerUrl, control: &Arc<Control>) -> io::Result<()> {
    let server = TcpStream::connect((server.host.as_str(), server.port))?;
    link::run(client, server, control)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::wire::{Message, StartupPacket};
    use crate::{Database, Server};

    /// What a driver sends for a statement without parameters, up to its Sync.
    fn executed(sql: &str) -> Vec<u8> {
        let parse = format!("\0{sql}\0\0\0");
        let messages: [(u8, &[u8]); 3] = [(b'P', parse.as_bytes()), (b'B', &[0; 8]), (b'E', &[0; 5])];
        messages.iter().flat_map(|(kind, body)| Message::new(*kind, body).bytes().to_vec()).collect()
    }

    #[test]
    fn a_commit_in_a_pipeline_of_the_extended_protocol_is_cut_like_any_other() {
        for (cut, rows) in [(Cut::BeforeCommit, "0"), (Cut::AfterCommit, "1")] {
            let database = Database::create(Server::shared(), "pipeline").expect("a database");
            let mut beside = database.sql().expect("a session");
            beside.run("create table t (id int)").expect("it runs");
            let proxy = FaultProxy::start(&database.url()).expect("a proxy");
            proxy.cut(cut.clone());

            let address = (proxy.url.host.as_str(), proxy.url.port);
            let mut stream = TcpStream::connect(address).expect("the proxy listens");
            let startup = StartupPacket::session(&[("user", "postgres"), ("database", database.name())]);
            let mut pipeline = startup.bytes().to_vec();
            for sql in ["begin", "insert into t values (1)", "commit"] {
                pipeline.extend(executed(sql));
            }
            pipeline.extend(Message::new(b'S', &[]).bytes());
            stream.write_all(&pipeline).expect("it is sent");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("the proxy closes the connection");

            assert!(proxy.wait_for_cut(Duration::from_secs(5)), "{cut:?}");
            assert!(!answer.windows(7).any(|text| text == b"COMMIT\0"), "{cut:?}");
            let count = beside.value("select count(*) from t").expect("it answers");
            assert_eq!(count.as_deref(), Some(rows), "{cut:?}");
        }
    }
}
