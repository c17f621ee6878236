//! Dead letters of an encrypted change set, opened for one batch: their rows are decrypted, in the transaction that
//! tries them again, into a temporary table that its end drops. The statements of the plan then read that instead.

use pgmend_core::plan::ChangeSet;
use pgmend_core::table::RelationName;
use pgmend_pg::Statement;
use pgmend_pg::dead_letters::StoredLetter;
use pgmend_pg::images::ImageTable;
use pgmend_pg::readtx::ReadTx;
use pgmend_pg::session::array_literal;

use super::pgcrypto;
use super::reading::Encrypted;
use crate::error::Error;

/// What opens the rows of dead letters, batch after batch.
pub(crate) struct OpenedLetters {
    /// The change set, as the plan's statements name it.
    change_set: String,
    table: String,
    row_type: String,
    rows: String,
    keys: Vec<(i64, String)>,
}

impl OpenedLetters {
    /// Prepares what each batch does. `keys` are the run's, opened.
    pub async fn prepare(tx: &ReadTx<'_>, change_set: &ChangeSet, keys: Vec<(i64, String)>) -> Result<Self, Error> {
        let (name, layout) = (&change_set.relation.name, &change_set.layout);
        let pgcrypto = pgcrypto(tx).await?;
        Encrypted::refuse_lost_keys(tx, name, &keys).await?;
        let sides: Vec<_> = layout.before.iter().chain(&layout.after).collect();
        let row_type = pgmend_sql::decrypted_type(&tx.declared(&sides).await?);
        let (into, encrypted) = (Encrypted::relation().sql(), RelationName::new("pgmend", name).sql());
        let rows = pgmend_sql::decrypt_rows(&pgcrypto, &encrypted, &into, ImageTable::ChangeSet.place(), layout);
        Ok(Self {
            change_set: change_set.relation.sql(),
            table: tx.decrypted_table(ImageTable::ChangeSet, Encrypted::NAME, layout).await?,
            row_type,
            rows: format!("{rows} where i.n = any ($1::text::bigint[])"),
            keys,
        })
    }

    /// What a batch runs before it tries these letters.
    /// Lock: new rows of temporary tables. Index: the change set's primary key.
    pub fn opening(&self, letters: &[StoredLetter]) -> Vec<Statement> {
        let ordinals: Vec<String> = letters.iter().filter_map(|letter| letter.ordinal).map(|n| n.to_string()).collect();
        vec![
            pgmend_pg::image_keys::opening(&self.keys),
            Statement::new("make a table for decrypted rows", self.table.clone(), vec![]),
            Statement::new("make a type for decrypted rows", self.row_type.clone(), vec![]),
            Statement::new("decrypt the rows of dead letters", self.rows.clone(), vec![array_literal(&ordinals)]),
        ]
    }

    /// A statement of the plan over the decrypted rows.
    pub fn instead(&self, sql: &str) -> String {
        sql.replace(&self.change_set, &Encrypted::relation().sql())
    }
}
