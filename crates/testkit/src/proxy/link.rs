//! One connection through the proxy.
//!
//! Each direction has a thread that reads and one that writes, with a queue in between: a
//! delay then delays, rather than letting one message wait for the one before.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use super::Cut;
use super::control::{Control, Direction};
use super::statement::{Statements, commits};
use crate::wire::{GSS_REQUEST, Message, PROTOCOL, StartupPacket, TLS_REQUEST, text_at};

/// Messages under way in one direction before its reader waits.
const QUEUE: usize = 4096;
const CHUNK: usize = 16 * 1024;

/// Both sockets of a connection, closed together.
pub(super) struct Ends {
    client: TcpStream,
    server: TcpStream,
    closed: AtomicBool,
}

impl Ends {
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // An end that is already gone is what we want.
        let _client = self.client.shutdown(Shutdown::Both);
        let _server = self.server.shutdown(Shutdown::Both);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// A piece of the stream and when it came in.
struct Arrival {
    at: Instant,
    piece: Piece,
}

enum Piece {
    Framed(Message),
    Raw(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Framed(message) => message.bytes(),
            Self::Raw(bytes) => bytes,
        }
    }
}

/// What one connection shares between its directions.
struct Link {
    control: Arc<Control>,
    ends: Arc<Ends>,
    /// A COMMIT went out whose answer is to be lost.
    answer_is_lost: AtomicBool,
}

/// Passes a connection on until one side ends it or a cut does.
pub(super) fn run(mut client: TcpStream, mut server: TcpStream, control: &Arc<Control>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_end, server_end) = (client.try_clone()?, server.try_clone()?);
    let closed = AtomicBool::new(false);
    let ends = Arc::new(Ends { client: client_end, server: server_end, closed });
    control.opened(Arc::clone(&ends));
    let answer_is_lost = AtomicBool::new(false);
    let link = &Link { control: Arc::clone(control), ends, answer_is_lost };
    let framed = link.start(&mut client, &mut server).inspect_err(|_| link.ends.close())?;
    thread::scope(|scope| {
        let (to_server, from_client) = sync_channel(QUEUE);
        let (to_client, from_server) = sync_channel(QUEUE);
        let (client_in, server_in) = (client.try_clone(), server.try_clone());
        let (mut client, mut server) = (client, server);
        scope.spawn(move || client_in.and_then(|from| read(from, framed, &to_server)).ok());
        scope.spawn(move || server_in.and_then(|from| read(from, framed, &to_client)).ok());
        scope.spawn(move || {
            link.write_to_server(&from_client, &mut server);
            // The server may still have an answer to the client's last words.
            let _half_closed = server.shutdown(Shutdown::Write);
        });
        link.write_to_client(&from_server, &mut client);
        // Nothing more will come from the server: the connection is over.
        link.ends.close();
    });
    Ok(())
}

fn read(mut from: TcpStream, framed: bool, queue: &SyncSender<Arrival>) -> io::Result<()> {
    loop {
        let piece = if framed { next_message(&mut from)? } else { next_chunk(&mut from)? };
        let Some(piece) = piece else { return Ok(()) };
        if queue.send(Arrival { at: Instant::now(), piece }).is_err() {
            return Ok(());
        }
    }
}

fn next_message(from: &mut TcpStream) -> io::Result<Option<Piece>> {
    Ok(Message::read(from)?.map(Piece::Framed))
}

fn next_chunk(from: &mut TcpStream) -> io::Result<Option<Piece>> {
    let mut chunk = vec![0; CHUNK];
    let length = from.read(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then_some(Piece::Raw(chunk)))
}

impl Link {
    /// Passes the startup packets on; false when what follows has no framing that we can read.
    fn start(&self, client: &mut TcpStream, server: &mut TcpStream) -> io::Result<bool> {
        let given_up = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let hold = |direction| {
            let passes = self.control.hold(direction, Instant::now(), &self.ends);
            passes.then_some(()).ok_or_else(given_up)
        };
        loop {
            let packet = StartupPacket::read(client)?;
            hold(Direction::ToServer)?;
            server.write_all(packet.bytes())?;
            match packet.code() {
                TLS_REQUEST | GSS_REQUEST => {
                    let mut answer = [0];
                    server.read_exact(&mut answer)?;
                    hold(Direction::ToClient)?;
                    client.write_all(&answer)?;
                    if answer != *b"N" {
                        return Ok(false);
                    }
                }
                code if code >> 16 == PROTOCOL >> 16 => return Ok(true),
                // Anything else than a session of protocol 3 is a request to cancel one.
                _ => {
                    self.control.count_cancel();
                    return Ok(false);
                }
            }
        }
    }

    fn write_to_server(&self, queue: &Receiver<Arrival>, server: &mut TcpStream) {
        let mut statements = Statements::default();
        for Arrival { at, piece } in queue {
            if !self.control.hold(Direction::ToServer, at, &self.ends) {
                return;
            }
            if let Piece::Framed(message) = &piece
                && let Some(sql) = statements.executed_by(message)
                && self.is_cut_before(&sql)
            {
                // Counted before anybody can notice.
                self.control.count_cut();
                self.ends.close();
                return;
            }
            if server.write_all(piece.bytes()).is_err() {
                return;
            }
        }
    }

    /// Decides about a statement that is about to reach the server.
    fn is_cut_before(&self, sql: &str) -> bool {
        let commits = commits(sql);
        let fits = |cut: &Cut| match cut {
            Cut::BeforeCommit | Cut::AfterCommit => commits,
            Cut::BeforeStatement(text) => sql.contains(text.as_str()),
        };
        match self.control.takes(fits) {
            Some(Cut::BeforeCommit | Cut::BeforeStatement(_)) => return true,
            Some(Cut::AfterCommit) => self.answer_is_lost.store(true, Ordering::SeqCst),
            None => {}
        }
        if commits {
            self.control.count_commit();
        }
        false
    }

    fn write_to_client(&self, queue: &Receiver<Arrival>, client: &mut TcpStream) {
        for Arrival { at, piece } in queue {
            if let Piece::Framed(message) = &piece
                && self.answer_is_lost.load(Ordering::SeqCst)
                && ends_transaction(message)
            {
                // Counted before anybody can notice.
                self.control.count_cut();
                self.ends.close();
                return;
            }
            if !self.control.hold(Direction::ToClient, at, &self.ends) {
                return;
            }
            if client.write_all(piece.bytes()).is_err() {
                return;
            }
        }
    }
}

/// Whether the server says with this message how the transaction ended.
fn ends_transaction(message: &Message) -> bool {
    let mut body = message.body();
    match message.kind() {
        b'C' => matches!(text_at(&mut body), "COMMIT" | "ROLLBACK"),
        // The server skips the COMMIT after an error; its client must not wait for ever.
        b'E' => true,
        _ => false,
    }
}
