//! The file with the secret key that opens encrypted images. Read here, used by the engine, sent nowhere.

use std::io::Read as _;
use std::path::Path;

use pgmend::Identities;

use crate::failure::Failure;

/// A file beyond this is no identity file.
const BYTES_MAX: u64 = 1024 * 1024;

/// Reads an identity file; `-` is standard input, so that a file that is itself encrypted need not be put on disk.
pub fn read(path: &Path) -> Result<Identities, Failure> {
    let cannot = |e: &std::io::Error| Failure::io(&format!("read the identity file `{}`", path.display()), e);
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text),
        false => std::fs::File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(|e| cannot(&e))?;
    Ok(Identities::parse(&text)?)
}
