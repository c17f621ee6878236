//! PostgreSQL's message framing, version 3: a type byte, a length, a body.

use std::io::{self, Read};

/// Protocol version 3.0 in a startup packet.
pub(crate) const PROTOCOL: u32 = 196_608;
/// The code of a packet that asks for TLS.
pub(crate) const TLS_REQUEST: u32 = 80_877_103;
/// The code of a packet that asks for GSSAPI encryption.
pub(crate) const GSS_REQUEST: u32 = 80_877_104;

/// Longer than any message of a test; a longer one means that the framing was lost.
const LONGEST: usize = 1 << 28;

/// One message after the startup phase, as it travels.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of this type with this body.
    pub(crate) fn new(kind: u8, body: &[u8]) -> Self {
        let mut bytes = vec![kind];
        bytes.extend(length_of(body));
        bytes.extend(body);
        Self { bytes }
    }

    /// Reads the next message, or nothing at a clean end of the stream.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; 5];
        // A process that was stopped for a while goes on with an interruption where a read has its time.
        let first = loop {
            match from.read(&mut header[..1]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if first == 0 {
            return Ok(None);
        }
        from.read_exact(&mut header[1..])?;
        let body = body_length([header[1], header[2], header[3], header[4]])?;
        let mut bytes = header.to_vec();
        bytes.resize(5 + body, 0);
        from.read_exact(&mut bytes[5..])?;
        Ok(Some(Self { bytes }))
    }

    pub(crate) fn kind(&self) -> u8 {
        self.bytes[0]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[5..]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A packet of the startup phase: a length and a body that starts with a code.
pub(crate) struct StartupPacket {
    bytes: Vec<u8>,
}

impl StartupPacket {
    /// The packet that opens a session; its text is made of names and values in turn.
    pub(crate) fn session(pairs: &[(&str, &str)]) -> Self {
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            body.extend(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let mut bytes = length_of(&body).to_vec();
        bytes.extend(body);
        Self { bytes }
    }

    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let body = body_length(length)?;
        let mut bytes = length.to_vec();
        bytes.resize(4 + body, 0);
        from.read_exact(&mut bytes[4..])?;
        Ok(Self { bytes })
    }

    pub(crate) fn code(&self) -> u32 {
        match self.bytes.get(4..8) {
            Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Takes a text that ends with a zero byte off the front of a body.
pub(crate) fn text_at<'a>(body: &mut &'a [u8]) -> &'a str {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    let (text, rest) = body.split_at(end);
    *body = rest.get(1..).unwrap_or_default();
    std::str::from_utf8(text).unwrap_or_default()
}

fn length_of(body: &[u8]) -> [u8; 4] {
    let length = u32::try_from(body.len() + 4).expect("a test's message is below 4 GiB");
    length.to_be_bytes()
}

fn body_length(field: [u8; 4]) -> io::Result<usize> {
    let lost = || io::Error::new(io::ErrorKind::InvalidData, "that is no PostgreSQL message");
    let length = usize::try_from(u32::from_be_bytes(field)).map_err(|_| lost())?;
    length.checked_sub(4).filter(|body| *body <= LONGEST).ok_or_else(lost)
}
