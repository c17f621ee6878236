//! Rows of a change set that refer to one another: a tree is deleted with its branches and comes back with
//! them, in one statement, since foreign keys are checked at a statement's end. What keeps a row back keeps
//! back the rows that depend on it.

use pgmend_core::table::{ForeignKey, ReferentialAction, Table, quote_ident};

use crate::apply::{same_key, unchanged};
use crate::conflict::Applied;

/// Foreign keys from the table to itself.
fn own(table: &Table) -> impl Iterator<Item = &ForeignKey> {
    table.references.iter().filter(|fk| fk.to == table.name && fk.from == table.name)
}

/// Foreign keys of the table to itself through which a delete takes further rows of it along.
pub(crate) fn cascading(table: &Table) -> Vec<&ForeignKey> {
    own(table).filter(|fk| fk.on_delete == ReferentialAction::Cascade).collect()
}

/// Whether a delete takes further rows of the table along, through a foreign key to itself.
pub fn cascades_within(table: &Table) -> bool {
    !cascading(table).is_empty()
}

/// `left.x = right.y and …`
pub(crate) fn equal(left: &str, left_columns: &[String], right: &str, right_columns: &[String]) -> String {
    let pairs = left_columns.iter().zip(right_columns);
    let equal = pairs.map(|(l, r)| format!("{left}.{} = {right}.{}", quote_ident(l), quote_ident(r)));
    equal.collect::<Vec<_>>().join(" and ")
}

/// The change set's columns that hold these columns of the table, if it holds them all.
fn held(columns: &[String], images: &[(String, String)]) -> Option<Vec<String>> {
    let image = |column: &String| images.iter().find(|(c, _)| c == column).map(|(_, image)| image.clone());
    columns.iter().map(image).collect()
}

fn null_in(alias: &str, columns: &[String]) -> String {
    let nulls = columns.iter().map(|c| format!("{alias}.{} is null", quote_ident(c)));
    nulls.collect::<Vec<_>>().join(" or ")
}

impl Applied<'_> {
    /// The condition under which a row may be deleted: nothing that stays refers to it, neither a row outside
    /// the change set nor one of it that is kept back itself. `every` counts foreign keys too that would reject
    /// the delete.
    pub fn unreferenced(&self, every: bool) -> Option<String> {
        let table = self.table;
        let counts = |fk: &&ForeignKey| every || fk.on_delete != ReferentialAction::Reject;
        let others: Vec<String> = table
            .referenced_by
            .iter()
            .filter(|fk| fk.from != table.name)
            .filter(counts)
            .map(|fk| {
                let refers = equal("r", &fk.from_columns, "t", &fk.to_columns);
                format!("not exists (select from {} as r where {refers})", fk.from.sql())
            })
            .collect();
        let own: Vec<(&ForeignKey, Vec<String>)> = own(table)
            .filter(counts)
            .filter_map(|fk| Some((fk, held(&fk.to_columns, &self.columns.before)?)))
            .collect();
        let mut conditions = others.clone();
        if !own.is_empty() {
            conditions.push(format!("s.n not in ({})", self.kept(&own, &others)));
        }
        (!conditions.is_empty()).then(|| conditions.join(" and "))
    }

    /// The ordinals of rows that cannot be deleted, and of those that they refer to.
    fn kept(&self, own: &[(&ForeignKey, Vec<String>)], others: &[String]) -> String {
        let (set, table, name) = (self.change_set, self.table, self.table.alone());
        let keys: Vec<String> = table.key_columns(self.key).map(|c| c.name.clone()).collect();
        let unchanged = unchanged(table, self.guard);
        let free = std::iter::once(unchanged.strip_prefix(" and ").unwrap_or("true").to_owned()).chain(others.to_vec());
        let mut starts = vec![format!(
            "select s.n from {set} as s join {name} as t on {} where s.op = 'D' and not ({})",
            same_key(table, self.key, &self.columns.keys),
            free.collect::<Vec<_>>().join(" and ")
        )];
        let mut steps = Vec::new();
        for (fk, to) in own {
            let refers = equal("r", &fk.from_columns, "s", to);
            starts.push(format!(
                "select s.n from {set} as s join {name} as r on {refers} where s.op = 'D' and not exists \
                 (select from {set} as d where d.op = 'D' and {})",
                equal("r", &keys, "d", &self.columns.keys)
            ));
            steps.push(format!("({refers})"));
        }
        format!(
            "with recursive pgmend_kept(n) as (({}) union select s.n from pgmend_kept as k join {set} as c on c.n = k.n \
             join {name} as r on {} join {set} as s on s.op = 'D' and ({})) select n from pgmend_kept",
            starts.join(" union all "),
            equal("r", &keys, "c", &self.columns.keys),
            steps.join(" or ")
        )
    }

    /// The condition under which a row may come back: what it refers to is there, or comes back with it.
    /// `every` counts other tables too. `None` if nothing is to be asked.
    pub fn complete(&self, every: bool) -> Option<String> {
        let table = self.table;
        let mut conditions: Vec<String> = Vec::new();
        for fk in table.references.iter().filter(|fk| every && fk.to != table.name) {
            let Some(from) = held(&fk.from_columns, &self.columns.after) else { continue };
            let refers = equal("r", &fk.to_columns, "s", &from);
            conditions.push(format!(
                "({} or exists (select from {} as r where {refers}))",
                null_in("s", &from),
                fk.to.sql()
            ));
        }
        let own: Vec<(&ForeignKey, Vec<String>, Vec<String>)> = own(table)
            .filter_map(|fk| {
                let (from, to) =
                    (held(&fk.from_columns, &self.columns.after)?, held(&fk.to_columns, &self.columns.after)?);
                Some((fk, from, to))
            })
            .collect();
        if !own.is_empty() {
            let lonely = self.lonely(&own, &conditions);
            conditions.push(format!("s.n not in ({lonely})"));
        }
        (!conditions.is_empty()).then(|| conditions.join(" and "))
    }

    /// The ordinals of rows whose parent neither is there nor comes back, and of those that refer to them.
    fn lonely(&self, own: &[(&ForeignKey, Vec<String>, Vec<String>)], others: &[String]) -> String {
        let (set, name) = (self.change_set, self.table.alone());
        let mut starts: Vec<String> = others
            .iter()
            .map(|condition| format!("select s.n from {set} as s where s.op = 'I' and not {condition}"))
            .collect();
        let mut steps = Vec::new();
        for (fk, from, to) in own {
            let absent = format!(
                "not ({}) and not exists (select from {name} as r where {})",
                null_in("s", from),
                equal("r", &fk.to_columns, "s", from)
            );
            starts.push(format!(
                "select s.n from {set} as s where s.op = 'I' and {absent} and not exists \
                 (select from {set} as p where p.op = 'I' and {})",
                equal("p", to, "s", from)
            ));
            steps.push(format!("({} and {absent})", equal("p", to, "s", from)));
        }
        format!(
            "with recursive pgmend_lonely(n) as (({}) union select s.n from pgmend_lonely as l join {set} as p on p.n = l.n \
             join {set} as s on s.op = 'I' and ({})) select n from pgmend_lonely",
            starts.join(" union all "),
            steps.join(" or ")
        )
    }
}
