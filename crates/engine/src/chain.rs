//! The ledger's chains: verified from inside, and against heads that were exported earlier, which also catches a
//! chain that was rewritten as a whole.

use std::collections::BTreeMap;

use pgmend_core::ledger::{Entry, broken_at};
use pgmend_core::refusal::{Code, Refusal};
pub use pgmend_pg::guardrails::ChainHead;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::Error;

/// The heads of all chains at one moment, kept outside the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerCheckpoint {
    /// The cluster that the ledger belongs to.
    pub system_identifier: String,
    /// The database.
    pub database: String,
    /// When, by the server's clock.
    pub taken_at: String,
    /// Where each chain ended.
    pub heads: Vec<ChainHead>,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerVerdict {
    /// Chains read.
    pub chains: usize,
    /// Entries read.
    pub entries: usize,
    /// What is wrong, one sentence each; none means intact.
    pub faults: Vec<String>,
}

/// One line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportedEntry {
    /// The run, or the plan before it has one.
    pub chain: String,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Engine {
    /// Verifies every chain: edits, deletions, reordering, and entries cut off at the end; with an exported
    /// checkpoint also chains that were rewritten or removed since.
    pub async fn verify_ledger(&mut self, against: Option<&LedgerCheckpoint>) -> Result<LedgerVerdict, Error> {
        self.need_control_schema().await?;
        let here = &self.here.database;
        if let Some(old) = against
            && (old.system_identifier != here.system_identifier || old.database != here.database)
        {
            let message = format!(
                "the checkpoint is of database {} of cluster {}, this is {} of {}",
                old.database, old.system_identifier, here.database, here.system_identifier
            );
            return Err(Refusal::new(Code::WrongServer, message, "connect to the ledger it was taken of").into());
        }
        let heads: BTreeMap<String, ChainHead> =
            self.session.chain_heads().await?.into_iter().map(|head| (head.chain.clone(), head)).collect();
        let mut verdict = LedgerVerdict { chains: 0, entries: 0, faults: Vec::new() };
        let known = self.session.chains().await?;
        for chain in &known {
            let entries = self.session.chain(chain).await?;
            verdict.chains += 1;
            verdict.entries += entries.len();
            verdict.faults.extend(fault(chain, &entries, heads.get(chain)));
            let old = against.and_then(|c| c.heads.iter().find(|head| head.chain == *chain));
            verdict.faults.extend(old.and_then(|head| rewritten(head, &entries)));
        }
        let gone = against.into_iter().flat_map(|c| &c.heads).filter(|head| !known.contains(&head.chain));
        verdict.faults.extend(gone.map(|head| format!("chain {} is gone", head.chain)));
        Ok(verdict)
    }

    /// The heads of all chains, to be kept where nobody who can write the database can write.
    pub async fn ledger_checkpoint(&mut self) -> Result<LedgerCheckpoint, Error> {
        self.need_control_schema().await?;
        Ok(LedgerCheckpoint {
            system_identifier: self.here.database.system_identifier.clone(),
            database: self.here.database.database.clone(),
            taken_at: self.session.surroundings().await?.now,
            heads: self.session.chain_heads().await?,
        })
    }

    /// Hands every entry to `each`, chain by chain, one chain in memory at a time.
    pub async fn export_ledger(
        &mut self,
        mut each: impl FnMut(&ExportedEntry) -> std::io::Result<()>,
    ) -> Result<usize, Error> {
        self.need_control_schema().await?;
        let mut written = 0;
        for chain in self.session.chains().await? {
            for entry in self.session.chain(&chain).await? {
                each(&ExportedEntry { chain: chain.clone(), entry }).map_err(|e| Error::Database {
                    doing: "could not write the export".into(),
                    message: e.to_string(),
                    sqlstate: String::new(),
                })?;
                written += 1;
            }
        }
        Ok(written)
    }
}

fn fault(chain: &str, entries: &[Entry], head: Option<&ChainHead>) -> Option<String> {
    if let Some(entry_no) = broken_at(entries) {
        return Some(format!("chain {chain} is broken at entry {entry_no}: it was edited, removed or moved"));
    }
    match (entries.last(), head) {
        (None, _) => Some(format!("chain {chain} has no entries")),
        (Some(_), None) => Some(format!("chain {chain} has no head")),
        (Some(last), Some(head)) if last.entry_no < head.entry_no => {
            Some(format!("chain {chain} ends at entry {}, but {} were written", last.entry_no, head.entry_no))
        }
        (Some(last), Some(head)) if last.hash != head.hash => Some(format!("chain {chain} does not end in its head")),
        (Some(_), Some(_)) => None,
    }
}

fn rewritten(head: &ChainHead, entries: &[Entry]) -> Option<String> {
    match entries.iter().find(|entry| entry.entry_no == head.entry_no) {
        Some(entry) if entry.hash == head.hash => None,
        Some(_) => Some(format!(
            "chain {} was rewritten: entry {} is not the one of the checkpoint",
            head.chain, head.entry_no
        )),
        None => Some(format!("chain {} lost entry {}, which the checkpoint has", head.chain, head.entry_no)),
    }
}
