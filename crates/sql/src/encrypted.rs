//! Images whose values are encrypted: on the server, in the statement that would store them plainly, with a key that
//! the batch's transaction holds in a setting. The row's text is the carrier: under the plan's frozen settings it reads
//! back exactly, whatever the types. Keys stay plain, since the sweep and `trace` look rows up by them.

use pgmend_core::plan::ImageLayout;
use pgmend_core::table::quote_ident;

use crate::apply::Window;
use crate::rewriter::ImageColumns;

/// The column that tells which image key a row is encrypted with.
const ENCRYPTED_WITH: &str = "encrypted_with";
/// The column that holds the values, an OpenPGP message.
const ENCRYPTED: &str = "encrypted";
/// AES-256, and no slow derivation: the key is random already, and as long as the cipher's.
const OPTIONS: &str = "cipher-algo=aes256, s2k-mode=0, s2k-digest-algo=sha256, compress-algo=0";
/// The composite type of the values of one row, made within the transaction that decrypts.
const ROW_TYPE: &str = "pg_temp.pgmend_decrypted_row";

impl ImageColumns {
    /// The columns of the image that hold keys and values, and what goes into them, each as a list.
    pub(crate) fn written(&self, keys: &[String], before: &[String], after: &[String]) -> (String, String) {
        let keys_of = || self.keys.iter().map(|name| quote_ident(name));
        let values = || before.iter().chain(after).cloned();
        let (columns, sources): (Vec<String>, Vec<String>) = match &self.pgcrypto {
            None => {
                let sides = self.before.iter().chain(&self.after).map(|(_, image)| quote_ident(image));
                (keys_of().chain(sides).collect(), keys.iter().cloned().chain(values()).collect())
            }
            Some(schema) => {
                let own = [ENCRYPTED_WITH, ENCRYPTED].map(str::to_owned);
                let encrypted = [key_no().to_owned(), encrypt(schema, &values().collect::<Vec<_>>())];
                (keys_of().chain(own).collect(), keys.iter().cloned().chain(encrypted).collect())
            }
        };
        (columns.join(", "), sources.join(", "))
    }
}

/// The number of the transaction's image key. Without one it is no number: nothing is ever encrypted with none.
fn key_no() -> &'static str {
    "pg_catalog.current_setting('pgmend.image_key_no')::bigint"
}

/// The values of a row as one encrypted text.
fn encrypt(schema: &str, values: &[String]) -> String {
    format!(
        "{schema}.pgp_sym_encrypt(row({})::text, pg_catalog.current_setting('pgmend.image_key'), '{OPTIONS}'::text)",
        values.join(", ")
    )
}

/// Whether this role can encrypt and decrypt: one value there and back.
/// Lock: none. Index: none.
pub fn encryption_trial(schema: &str) -> String {
    format!(
        "select {schema}.pgp_sym_decrypt({schema}.pgp_sym_encrypt('a value'::text, 'a key'::text, '{OPTIONS}'::text), 'a key'::text)"
    )
}

/// Encrypts the next rows of a change set into another table; `window` are ordinals of the change set.
/// Lock: new rows. Index: the change set's primary key.
pub fn encrypt_rows(schema: &str, change_set: &str, into: &str, layout: &ImageLayout, window: Window) -> String {
    let list = |columns: &[pgmend_core::plan::ImageColumn]| -> Vec<String> {
        columns.iter().map(|c| format!("s.{}", quote_ident(&c.image_column))).collect()
    };
    let keys: Vec<String> = layout.key.iter().map(|c| format!(", {}", quote_ident(&c.image_column))).collect();
    let sources: Vec<String> = list(&layout.key).iter().map(|key| format!(", {key}")).collect();
    let values: Vec<String> = list(&layout.before).into_iter().chain(list(&layout.after)).collect();
    format!(
        "insert into {into} (n, op{}, {ENCRYPTED_WITH}, {ENCRYPTED}) select s.n, s.op{}, {}, {} from {change_set} as s where {} order by s.n",
        keys.concat(),
        sources.concat(),
        key_no(),
        encrypt(schema, &values),
        window.condition("s")
    )
}

/// Makes the type of the decrypted values. `columns` are their declarations.
/// Lock: none but on the new table. Index: none.
pub fn decrypted_type(columns: &str) -> String {
    format!("create temporary table pgmend_decrypted_row ({columns}) on commit drop")
}

/// Decrypts a table of images or a change set into a plain one of the same shape. `place` is the column that orders its
/// rows. Each row's key is in the setting that its number names.
/// Lock: new rows of a temporary table. Index: none; all is read.
pub fn decrypt_rows(schema: &str, encrypted: &str, into: &str, place: &str, layout: &ImageLayout) -> String {
    let keys: Vec<String> = layout.key.iter().map(|c| format!(", {}", quote_ident(&c.image_column))).collect();
    let sources: Vec<String> = layout.key.iter().map(|c| format!(", i.{}", quote_ident(&c.image_column))).collect();
    let sides = layout.before.iter().chain(&layout.after);
    let (names, values): (Vec<String>, Vec<String>) = sides
        .map(|c| (format!(", {}", quote_ident(&c.image_column)), format!(", (d.r).{}", quote_ident(&c.image_column))))
        .unzip();
    // OFFSET 0: the row is decrypted once, not once for each of its columns.
    format!(
        "insert into {into} ({place}, op{}{}) select i.{place}, i.op{}{} from {encrypted} as i \
         cross join lateral (select {}::{ROW_TYPE} as r offset 0) as d",
        keys.concat(),
        names.concat(),
        sources.concat(),
        values.concat(),
        decrypt(schema, "i")
    )
}

/// The text of the row called `alias`, by the key that its number names; an error where that key was not opened.
fn decrypt(schema: &str, alias: &str) -> String {
    format!(
        "{schema}.pgp_sym_decrypt({alias}.{ENCRYPTED}, \
         pg_catalog.current_setting('pgmend.image_key_' || {alias}.{ENCRYPTED_WITH}))"
    )
}

/// The same, or NULL where that key was not opened.
pub fn decrypt_if_opened(schema: &str, alias: &str) -> String {
    format!(
        "{schema}.pgp_sym_decrypt({alias}.{ENCRYPTED}, \
         nullif(pg_catalog.current_setting('pgmend.image_key_' || {alias}.{ENCRYPTED_WITH}, true), ''))"
    )
}
