//! Images that only a recipient can read. The recipient's public key is in the plan; the identity, its secret half, is
//! read by the client of whoever undoes or traces, and never sent: it opens image keys here, and only those are bound.

mod change_set;
mod findings;
mod letters;
mod reading;

use pgmend_core::job::Job;
use pgmend_core::plan::Plan;
use pgmend_core::recipient::{HELP, Recipient};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_pg::batch::Lease;
use pgmend_pg::image_keys::{ImageKey, KeptKey};
use pgmend_pg::readtx::ReadTx;
use pgmend_pg::{PgError, Session};

use crate::engine::Engine;
use crate::error::Error;
pub(crate) use change_set::encrypt_change_set;
pub(crate) use findings::parameters_logged;
pub(crate) use letters::OpenedLetters;
pub(crate) use reading::{Encrypted, rows_of_key};

/// An identity file beyond this many lines is no identity file.
const LINES_MAX: usize = 1_000;

/// The secret keys of a file that `age-keygen` wrote. Prints a placeholder.
#[derive(Clone)]
pub struct Identities(Vec<age::x25519::Identity>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({}, ‹masked›)", self.0.len())
    }
}

impl Identities {
    /// Reads the text of an identity file: one `AGE-SECRET-KEY-1…` a line, comments and empty lines aside. No message
    /// repeats any of it.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let wrong = |message: String, help: &str| Refusal::new(Code::WrongIdentity, message, help);
        if text.starts_with("age-encryption.org/") || text.starts_with("-----BEGIN AGE") {
            let help = "decrypt it on the way in: age -d FILE | pgmend undo RUN --identity -";
            return Err(wrong("the identity file is itself encrypted".into(), help));
        }
        let mut identities = Vec::new();
        for (at, line) in text.lines().enumerate().take(LINES_MAX) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity = line.parse().map_err(|_| {
                let message = format!("line {} of the identity file is no age identity", at + 1);
                wrong(message, "give the file that age-keygen wrote; keys of ssh and of plugins are not taken")
            })?;
            identities.push(identity);
        }
        if identities.is_empty() {
            let help = "give the file that age-keygen wrote, with a line AGE-SECRET-KEY-1…";
            return Err(wrong("the identity file holds no identity".into(), help));
        }
        Ok(Self(identities))
    }

    /// Those of the keys that open: number and secret.
    pub(crate) fn open(&self, keys: &[KeptKey]) -> Vec<(i64, String)> {
        let secret = |key: &KeptKey| {
            let opened = self.0.iter().find_map(|identity| age::decrypt(identity, &key.encrypted).ok())?;
            Some((key.key_no, String::from_utf8(opened).ok()?))
        };
        keys.iter().filter_map(secret).collect()
    }

    /// Opens all of a run's keys, or refuses.
    pub(crate) fn open_all(&self, keys: &[KeptKey], what: &str) -> Result<Vec<(i64, String)>, Refusal> {
        let opened = self.open(keys);
        let Some(shut) = keys.iter().find(|key| opened.iter().all(|(no, _)| *no != key.key_no)) else {
            return Ok(opened);
        };
        let message = format!("the identity does not open {what}: they are encrypted to {}", shut.recipient);
        let help = "give the identity of that recipient: age-keygen -y FILE prints whose a file is";
        Err(Refusal::new(Code::WrongIdentity, message, help))
    }
}

/// The recipient as the library takes it, its checksum proved.
fn checked(recipient: &Recipient) -> Result<age::x25519::Recipient, Refusal> {
    recipient.as_str().parse().map_err(|_| {
        let message = format!("`{recipient}` is not an age recipient: a letter of it is wrong");
        Refusal::new(Code::Recipient, message, HELP)
    })
}

/// The recipient of a job's images, down to its checksum.
pub(crate) fn recipient_of(job: &Job) -> Result<Option<Recipient>, Refusal> {
    let own = job.file.images.recipient()?;
    own.as_ref().map(checked).transpose()?;
    Ok(own)
}

/// A new key for images, kept encrypted to the recipient before anything else knows of it.
pub(crate) async fn new_image_key(
    session: &Session,
    lease: &Lease,
    recipient: &Recipient,
) -> Result<ImageKey, PgError> {
    let failed = |what: String| PgError::new("encrypt the image key", Code::Recipient.as_str(), what);
    let to = checked(recipient).map_err(|refusal| failed(refusal.message))?;
    // 366 random bits of the operating system, as text that a person can hand to pgp_sym_decrypt.
    let random = || uuid::Uuid::new_v4().simple().to_string();
    let secret = [random(), random(), random()].concat();
    let encrypted = age::encrypt(&to, secret.as_bytes()).map_err(|error| failed(error.to_string()))?;
    let key_no = session.keep_image_key(lease, recipient.as_str(), &encrypted).await?;
    Ok(ImageKey::new(lease.run, key_no, secret))
}

impl Engine {
    /// Whom the images of a job are encrypted to: whom the job says, or whom its environment demands.
    pub(crate) async fn recipient_for(&self, job: &Job) -> Result<Option<Recipient>, Error> {
        let own = recipient_of(job)?;
        let Some(demanded) = self.demanded_recipient().await? else { return Ok(own) };
        match own {
            Some(own) if own != demanded => {
                let message = format!("the environment demands images encrypted to {demanded}, the job says {own}");
                let help = "leave `images.recipient` out: the plan takes it from the environment";
                Err(Refusal::new(Code::Recipient, message, help).into())
            }
            Some(_) | None => Ok(Some(demanded)),
        }
    }

    /// Whom images must be encrypted to here.
    pub(crate) async fn demanded_recipient(&self) -> Result<Option<Recipient>, Error> {
        let installed = match self.has_control_schema().await? {
            true => self.session.policy().await?.and_then(|(_, policy)| policy.recipient),
            false => None,
        };
        let named = self.environment.as_ref().and_then(|named| named.environment.policy.recipient.clone());
        let Some(text) = installed.or(named) else { return Ok(None) };
        let demanded = Recipient::parse(&text)?;
        checked(&demanded)?;
        Ok(Some(demanded))
    }

    /// Encrypts the change set of a run that is given up, under its lease. Whoever may cancel need not be allowed to read
    /// rows: where it fails, they stay plain until `prune` drops them, and the ledger lacks `change_set_encrypted`.
    pub(crate) async fn encrypt_given_up(&self, lease: &Lease, plan: &Plan) {
        let _plain = encrypt_change_set(&self.session, lease, plan).await;
    }

    /// The keys that the values of a run's images need; an identity must have been given that opens them all.
    pub(crate) async fn opened_keys(
        &self,
        run: pgmend_core::id::RunId,
        identities: Option<&Identities>,
    ) -> Result<Vec<(i64, String)>, Error> {
        let keys = self.session.image_keys(run).await?;
        let what = format!("the images of run {run}");
        match identities {
            Some(identities) => Ok(identities.open_all(&keys, &what)?),
            None => {
                let to = keys.first().map_or("nobody", |key| &key.recipient);
                let message = format!("{what} are encrypted to {to}");
                let help =
                    format!("add --identity FILE, the file with the secret key of {to}; it stays on this machine");
                Err(Refusal::new(Code::IdentityMissing, message, help).into())
            }
        }
    }
}

/// The schema of pgcrypto for this role; refuses where it cannot encrypt.
pub(crate) async fn pgcrypto(tx: &ReadTx<'_>) -> Result<String, Error> {
    let Some(schema) = tx.pgcrypto().await? else {
        let message = "images cannot be encrypted: extension pgcrypto is not installed in this database";
        let help = "let the database's owner or a DBA type: create extension pgcrypto";
        return Err(Refusal::new(Code::NoPgcrypto, message, help).into());
    };
    match tx.attempt("try to encrypt", &pgmend_sql::encryption_trial(&schema), vec![]).await {
        Ok(_) => Ok(schema),
        Err(error) if error.is_connection() => Err(error.into()),
        Err(error) => {
            let message = format!("images cannot be encrypted: {} ({})", error.message, error.sqlstate);
            let help = format!(
                "let a DBA type: grant usage on schema {schema} to …; grant execute on all functions in schema {schema} to …"
            );
            Err(Refusal::new(Code::NoPgcrypto, message, help).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(key_no: i64, secret: &str, to: &age::x25519::Identity) -> KeptKey {
        let encrypted = age::encrypt(&to.to_public(), secret.as_bytes()).unwrap();
        KeptKey { key_no, recipient: to.to_public().to_string(), encrypted }
    }

    fn file(identity: &age::x25519::Identity) -> String {
        use age::secrecy::ExposeSecret as _;
        format!(
            "# created: today\n# public key: {}\n\n{}\n",
            identity.to_public(),
            identity.to_string().expose_secret()
        )
    }

    #[test]
    fn the_file_of_age_keygen_opens_what_is_encrypted_to_it_and_nothing_else() {
        let (own, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        let identities = Identities::parse(&file(&own)).unwrap();
        assert_eq!(identities.open_all(&[kept(7, "a key", &own)], "them").unwrap(), [(7, "a key".to_owned())]);
        let refusal = identities.open_all(&[kept(7, "a key", &own), kept(8, "another", &other)], "them").unwrap_err();
        assert_eq!(refusal.code, Code::WrongIdentity);
        assert!(refusal.message.contains(&other.to_public().to_string()), "{}", refusal.message);
        let both = Identities::parse(&(file(&own) + &file(&other))).unwrap();
        assert_eq!(both.open(&[kept(8, "another", &other)]).len(), 1);
    }

    #[test]
    fn a_file_that_holds_no_identity_is_refused_without_being_repeated() {
        for text in ["", "# nothing\n", "wyvern\n", "age-encryption.org/v1\n-> scrypt wyvern", "AGE-SECRET-KEY-1WYVERN"]
        {
            let refusal = Identities::parse(text).unwrap_err();
            assert_eq!(refusal.code, Code::WrongIdentity, "{text}");
            assert!(!format!("{refusal} {}", refusal.help).to_lowercase().contains("wyvern"), "{refusal}");
        }
    }

    #[test]
    fn a_recipient_with_a_wrong_letter_is_refused() {
        let right = age::x25519::Identity::generate().to_public().to_string();
        let wrong = format!("{}{}", &right[..61], if right.ends_with('q') { 'p' } else { 'q' });
        assert!(checked(&Recipient::parse(&right).unwrap()).is_ok());
        assert_eq!(checked(&Recipient::parse(&wrong).unwrap()).unwrap_err().code, Code::Recipient);
    }
}
