//! Builds every statement over the target: the tree is prepared once, each shape is made from it.

use pg_query::protobuf as p;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Key, Table};

use crate::assign::{self, Assignments};
use crate::clock;
use crate::deparse;
use crate::depth;
use crate::insert::{self, Proposal};
use crate::reads::ColumnsRead;
use crate::statement::{Statement, Tree};
use crate::walk::{Visitor, Walk};

/// The target and the key that orders it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The table.
    pub table: &'a Table,
    /// The key.
    pub key: &'a Key,
}

/// What the catalog of the table alone does not tell.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// INSERT without a column list: the number of columns of its source, where
    /// [`Statement::source_width`] does not know it.
    pub source_width: Option<usize>,
}

/// The columns of an image table or a change set, in the order they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageColumns {
    /// Image columns of the key, in key order.
    pub keys: Vec<String>,
    /// Before-images: table column and image column.
    pub before: Vec<(String, String)>,
    /// After-images: table column and image column.
    pub after: Vec<(String, String)>,
    /// The schema of pgcrypto, ready for SQL, where before and after are kept encrypted in one column.
    pub pgcrypto: Option<String>,
}

/// Builds the statements of one change over one table.
#[derive(Debug, Clone)]
pub struct Rewriter<'a> {
    pub(crate) statement: &'a Statement,
    pub(crate) target: Target<'a>,
    pub(crate) tree: Tree,
    pub(crate) assignments: Assignments,
    pub(crate) proposal: Option<Proposal>,
    uses_clock: bool,
}

impl<'a> Rewriter<'a> {
    /// Prepares the tree: clock bound to the instant, the target's name completed by its schema
    /// (a CTE of the same name must not capture it), RETURNING and row locks dropped.
    pub fn new(statement: &'a Statement, target: Target<'a>, options: Options) -> Result<Self, Refusal> {
        depth::on_large_stack(|| Self::prepare(statement, target, &options))
    }

    fn prepare(statement: &'a Statement, target: Target<'a>, options: &Options) -> Result<Self, Refusal> {
        let instant = statement.params() + 1;
        let mut tree = statement.tree.clone();
        let mut assignments = Assignments::default();
        let mut proposal = None;
        let mut uses_clock = match &mut tree {
            Tree::Update(update) => {
                let bound = clock::bind(&mut **update, instant);
                update.returning_clause = None;
                complete(&mut update.relation, target.table);
                assignments = assign::prepare(&mut update.target_list, target.table, instant)?;
                update.walk(&mut Unlock);
                bound
            }
            Tree::Delete(delete) => {
                let bound = clock::bind(&mut **delete, instant);
                delete.returning_clause = None;
                complete(&mut delete.relation, target.table);
                delete.walk(&mut Unlock);
                bound
            }
            Tree::Insert(insert) => {
                let mut bound = clock::bind(&mut **insert, instant);
                insert.returning_clause = None;
                complete(&mut insert.relation, target.table);
                insert.walk(&mut Unlock);
                if let Some(conflict) = &mut insert.on_conflict_clause {
                    bound |= assign::prepare(&mut conflict.target_list, target.table, instant)?.uses_clock;
                }
                let made = insert::propose(insert, target.table, options, instant)?;
                bound |= made.uses_clock;
                proposal = Some(made);
                bound
            }
        };
        uses_clock |= assignments.uses_clock;
        Ok(Self { statement, target, tree, assignments, proposal, uses_clock })
    }

    /// The first number free for a statement's own parameters, `p+2`: `p+1` is the instant.
    pub fn first_param(&self) -> usize {
        self.statement.params() + 2
    }

    /// Whether the built statements read the instant, inlined defaults included.
    pub fn uses_clock(&self) -> bool {
        self.uses_clock
    }

    /// Whether the after values can be computed by a SELECT. False for an UPDATE that assigns
    /// elements or fields (`a[3] = …`), and for one that draws from an identity's sequence.
    pub fn computable_after(&self) -> bool {
        self.assignments.computable
    }

    /// The assigned columns that have an after value, in the order of `pgmend_a1..`. Generated
    /// columns (`= DEFAULT`) have none.
    pub fn after_columns(&self) -> Vec<String> {
        self.assignments.after.iter().map(|(column, _)| column.clone()).collect()
    }

    /// The target's columns that the statement may read (over-approximated), in table order.
    pub fn columns_read(&self) -> Vec<String> {
        let columns = &self.target.table.columns;
        // `t.f` may call a function f over the whole row.
        let calls =
            |name: &String| self.target.table.column(name).is_none() && !SYSTEM_COLUMNS.contains(&name.as_str());
        let read = match self.statement.columns_read() {
            ColumnsRead::Some(names) if !self.statement.qualified.iter().any(calls) => names,
            ColumnsRead::Some(_) | ColumnsRead::All => return columns.iter().map(|c| c.name.clone()).collect(),
        };
        let known = |column: &&Column| read.contains(&column.name) || self.assignments.partial.contains(&column.name);
        columns.iter().filter(known).map(|c| c.name.clone()).collect()
    }

    /// The user's statement as it is, clock bound, for EXPLAIN.
    pub fn plain(&self) -> Result<String, Refusal> {
        deparse::text(&self.tree.node())
    }

    /// The name by which the statement calls its target.
    pub(crate) fn called(&self) -> &str {
        self.statement.called()
    }

    /// The key's columns, in key order.
    pub(crate) fn key_columns(&self) -> Vec<&'a Column> {
        self.target.table.key_columns(self.target.key).collect()
    }

    pub(crate) fn no_after(&self) -> Refusal {
        Refusal::new(
            Code::CannotFreeze,
            format!("the new values of {} cannot be computed apart from the change", self.target.table.name),
            "assign whole columns instead of elements or fields",
        )
    }
}

/// System columns, which are columns but not in [`Table::columns`].
const SYSTEM_COLUMNS: &[&str] = &["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

fn complete(relation: &mut Option<p::RangeVar>, table: &Table) {
    if let Some(relation) = relation {
        relation.schemaname.clone_from(&table.name.schema);
    }
}

/// Row locks inside the statement: the batch takes its own, and planning may not lock at all.
struct Unlock;

impl Visitor for Unlock {
    fn select(&mut self, select: &mut p::SelectStmt) {
        select.locking_clause.clear();
    }
}
