//! The user's statement, read and classified.

use pg_query::NodeEnum;
use pg_query::protobuf as p;
use pgmend_core::refusal::{Code, Refusal};

use crate::assign;
use crate::clock;
use crate::deparse;
use crate::depth;
use crate::params;
use crate::reads::{ColumnsRead, FunctionUse, Reads};
use crate::text;
use crate::walk::{Visitor, Walk};

/// A parameter that the job declares: `:name` in the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamDecl {
    /// The name, without the colon.
    pub name: String,
    /// Its type, ready for SQL, for example `int` or `timestamptz`.
    pub type_sql: String,
}

/// What the statement does to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `UPDATE`.
    Update,
    /// `DELETE`.
    Delete,
    /// `INSERT`.
    Insert,
}

/// An `ON CONFLICT` clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnConflict {
    /// `DO UPDATE` rather than `DO NOTHING`.
    pub update: bool,
    /// The arbiter's plain columns.
    pub columns: Vec<String>,
    /// The arbiter when named: `ON CONSTRAINT name`.
    pub constraint: Option<String>,
    /// Whether the arbiter has an expression, a collation, an operator class or a predicate.
    pub complex: bool,
    /// The columns that `DO UPDATE SET` assigns.
    pub set_columns: Vec<String>,
    /// Those of them that it sets to their own proposed value, `a = excluded.a`: for a column of the arbiter, the value that
    /// the row has already.
    pub set_as_proposed: Vec<String>,
    /// Whether `DO UPDATE` holds a sub-select, which sees the rows that earlier batches wrote.
    pub queries: bool,
}

/// The tree of one of the three statements that pgmend runs.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    /// An UPDATE.
    Update(Box<p::UpdateStmt>),
    /// A DELETE.
    Delete(Box<p::DeleteStmt>),
    /// An INSERT.
    Insert(Box<p::InsertStmt>),
}

impl Tree {
    /// The node, as the deparser takes it.
    pub(crate) fn node(&self) -> NodeEnum {
        match self {
            Tree::Update(update) => NodeEnum::UpdateStmt(update.clone()),
            Tree::Delete(delete) => NodeEnum::DeleteStmt(delete.clone()),
            Tree::Insert(insert) => NodeEnum::InsertStmt(insert.clone()),
        }
    }

    /// The tree of a node, if it is one of the three.
    pub(crate) fn of(node: NodeEnum) -> Option<Tree> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "every other statement is refused")]
        match node {
            NodeEnum::UpdateStmt(update) => Some(Tree::Update(update)),
            NodeEnum::DeleteStmt(delete) => Some(Tree::Delete(delete)),
            NodeEnum::InsertStmt(insert) => Some(Tree::Insert(insert)),
            _ => None,
        }
    }

    /// The target.
    pub(crate) fn relation(&self) -> &Option<p::RangeVar> {
        match self {
            Tree::Update(update) => &update.relation,
            Tree::Delete(delete) => &delete.relation,
            Tree::Insert(insert) => &insert.relation,
        }
    }
}

/// One UPDATE, DELETE or INSERT, parsed, its `:name`s replaced by `$n`.
#[derive(Debug, Clone)]
pub struct Statement {
    pub(crate) tree: Tree,
    pub(crate) params: usize,
    pub(crate) canonical: String,
    schema: Option<String>,
    name: String,
    alias: Option<String>,
    only: bool,
    relations: Vec<(Option<String>, String)>,
    functions: Vec<FunctionUse>,
    operators: Vec<String>,
    pub(crate) columns: ColumnsRead,
    pub(crate) qualified: Vec<String>,
    gathers: bool,
    uses_clock: bool,
    hidden_clock: bool,
    locks: bool,
}

impl Statement {
    /// Parses the text. `$1..$p` are the parameters in declaration order.
    pub fn parse(text: &str, params: &[ParamDecl]) -> Result<Statement, Refusal> {
        depth::on_large_stack(|| Statement::read(text, params))
    }

    fn read(text: &str, params: &[ParamDecl]) -> Result<Statement, Refusal> {
        let mut node = text::single(text, params)?;
        params::cast_all(&mut node, params)?;
        let canonical_node = without_returning(&node);
        let tree = Tree::of(node).ok_or_else(|| Refusal::new(Code::NotAChange, "not a change", ""))?;
        let relation = tree.relation().clone().unwrap_or_default();
        let alias = relation.alias.as_ref().map(|alias| alias.aliasname.clone());
        let called = alias.clone().unwrap_or_else(|| relation.relname.clone());
        let mut bound = tree.node();
        let uses_clock = clock::bind(&mut bound, params.len() + 1);
        let reads = Reads::of(&bound, &called);
        check(&reads)?;
        Ok(Statement {
            canonical: deparse::text(&canonical_node)?,
            params: params.len(),
            schema: Some(relation.schemaname).filter(|schema| !schema.is_empty()),
            name: relation.relname,
            alias,
            only: !relation.inh,
            relations: reads.relations.into_iter().collect(),
            functions: reads.functions.into_iter().collect(),
            operators: reads.operators.into_iter().collect(),
            columns: if reads.all_columns {
                ColumnsRead::All
            } else {
                ColumnsRead::Some(reads.columns.into_iter().collect())
            },
            qualified: reads.qualified.into_iter().collect(),
            gathers: reads.gathers,
            uses_clock,
            hidden_clock: reads.hidden_clock,
            locks: reads.locks,
            tree,
        })
    }

    /// What it does.
    pub fn kind(&self) -> Kind {
        match self.tree {
            Tree::Update(_) => Kind::Update,
            Tree::Delete(_) => Kind::Delete,
            Tree::Insert(_) => Kind::Insert,
        }
    }

    /// The number of the user's parameters.
    pub fn params(&self) -> usize {
        self.params
    }

    /// Schema and name of the target, as the catalog spells them.
    pub fn target(&self) -> (Option<&str>, &str) {
        (self.schema.as_deref(), &self.name)
    }

    /// The target's alias.
    pub fn alias(&self) -> Option<&str> {
        self.alias.as_deref()
    }

    /// The name by which the statement calls its target: the alias, or the table's name.
    pub(crate) fn called(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }

    /// Whether the target is written `ONLY`.
    pub fn only(&self) -> bool {
        self.only
    }

    /// The statement deparsed without RETURNING, parameters as `$n` casts, the clock as written.
    pub fn canonical(&self) -> String {
        self.canonical.clone()
    }

    /// All relations read anywhere, CTE names resolved by scope. The target counts only if it is
    /// read again apart from its own position.
    pub fn reads(&self) -> Vec<(Option<String>, String)> {
        self.relations.clone()
    }

    /// All functions called. The clock functions, which are bound to the instant, are not listed.
    pub fn functions(&self) -> Vec<FunctionUse> {
        self.functions.clone()
    }

    /// UPDATE: the columns that are set to their DEFAULT.
    pub fn defaulted(&self) -> Vec<String> {
        let Tree::Update(update) = &self.tree else { return Vec::new() };
        let mut names = Vec::new();
        for target in &update.target_list {
            if let Some(NodeEnum::ResTarget(target)) = &target.node
                && target.val.as_ref().is_some_and(|value| assign::is_default(value))
            {
                names.push(target.name.clone());
            }
        }
        names
    }

    /// All operators used, by name.
    pub fn operators(&self) -> Vec<String> {
        self.operators.clone()
    }

    /// UPDATE: the assigned columns in order, each once; INSERT: the explicit column list (empty = all).
    pub fn assigned(&self) -> Vec<String> {
        match &self.tree {
            Tree::Update(update) => target_names(&update.target_list),
            Tree::Insert(insert) => target_names(&insert.cols),
            Tree::Delete(_) => Vec::new(),
        }
    }

    /// Names that may be columns the statement reads, of any relation.
    /// [`crate::Rewriter::columns_read`] resolves them for the target.
    pub fn columns_read(&self) -> ColumnsRead {
        self.columns.clone()
    }

    /// UPDATE has FROM, DELETE has USING.
    pub fn joins_target(&self) -> bool {
        match &self.tree {
            Tree::Update(update) => !update.from_clause.is_empty(),
            Tree::Delete(delete) => !delete.using_clause.is_empty(),
            Tree::Insert(_) => false,
        }
    }

    /// Whether it reads the clock in a form that is bound to the run's instant.
    pub fn uses_clock(&self) -> bool {
        self.uses_clock
    }

    /// Whether an untyped literal such as `'now'` or `'today'` might read the clock, depending on
    /// the type it meets. In `SET column = 'now'` it is bound; elsewhere it is not.
    pub fn may_hide_clock(&self) -> bool {
        self.hidden_clock
    }

    /// Whether a sub-select locks rows (`FOR UPDATE`, `SKIP LOCKED` …). The locks are dropped: pgmend
    /// locks the rows of each batch itself.
    pub fn locks_rows(&self) -> bool {
        self.locks
    }

    /// The ON CONFLICT clause.
    pub fn on_conflict(&self) -> Option<OnConflict> {
        let Tree::Insert(insert) = &self.tree else { return None };
        let clause = insert.on_conflict_clause.as_deref()?;
        let mut found = OnConflict {
            update: clause.action() == p::OnConflictAction::OnconflictUpdate,
            columns: Vec::new(),
            constraint: None,
            complex: false,
            set_columns: target_names(&clause.target_list),
            set_as_proposed: as_proposed(&clause.target_list),
            queries: holds_query(clause),
        };
        if let Some(infer) = clause.infer.as_deref() {
            found.constraint = Some(infer.conname.clone()).filter(|name| !name.is_empty());
            found.complex = infer.where_clause.is_some();
            for elem in &infer.index_elems {
                match &elem.node {
                    Some(NodeEnum::IndexElem(elem))
                        if elem.expr.is_none() && elem.collation.is_empty() && elem.opclass.is_empty() =>
                    {
                        found.columns.push(elem.name.clone());
                    }
                    Some(_) | None => found.complex = true,
                }
            }
        }
        Some(found)
    }

    /// Whether the user wrote RETURNING (it is dropped).
    pub fn had_returning(&self) -> bool {
        match &self.tree {
            Tree::Update(update) => update.returning_clause.is_some(),
            Tree::Delete(delete) => delete.returning_clause.is_some(),
            Tree::Insert(insert) => insert.returning_clause.is_some(),
        }
    }

    /// Whether some part gathers rows, so that repeating it in each batch repeats that work: a CTE, a
    /// sub-select in FROM, or an uncorrelated sub-select with LIMIT, DISTINCT, GROUP BY, an
    /// aggregate, a window or a set operation. Over-approximated.
    pub fn aggregates_elsewhere(&self) -> bool {
        self.gathers
    }
}

/// Columns that a DO UPDATE sets to `excluded.` and their own name.
fn as_proposed(targets: &[pg_query::Node]) -> Vec<String> {
    let own = |target: &pg_query::Node| {
        let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
        let mut value = target.val.as_ref()?.node.as_ref()?;
        if let NodeEnum::MultiAssignRef(part) = value {
            let NodeEnum::RowExpr(row) = part.source.as_ref()?.node.as_ref()? else { return None };
            value = row.args.get(usize::try_from(part.colno - 1).ok()?)?.node.as_ref()?;
        }
        let NodeEnum::ColumnRef(column) = value else { return None };
        let fields: Vec<&str> = column
            .fields
            .iter()
            .filter_map(|field| match &field.node {
                Some(NodeEnum::String(name)) => Some(name.sval.as_str()),
                Some(_) | None => None,
            })
            .collect();
        (target.indirection.is_empty() && fields == ["excluded", target.name.as_str()]).then(|| target.name.clone())
    };
    targets.iter().filter_map(own).collect()
}

/// Whether an ON CONFLICT clause holds a sub-select.
fn holds_query(clause: &p::OnConflictClause) -> bool {
    struct Queries(bool);
    impl Visitor for Queries {
        fn select(&mut self, _select: &mut p::SelectStmt) {
            self.0 = true;
        }
    }
    let (mut clause, mut queries) = (clause.clone(), Queries(false));
    clause.target_list.walk(&mut queries);
    clause.where_clause.walk(&mut queries);
    queries.0
}

/// The assigned names of a target list, each once.
pub(crate) fn target_names(targets: &[pg_query::Node]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for target in targets {
        if let Some(NodeEnum::ResTarget(target)) = &target.node
            && !names.contains(&target.name)
        {
            names.push(target.name.clone());
        }
    }
    names
}

pub(crate) fn without_returning(node: &NodeEnum) -> NodeEnum {
    let mut node = node.clone();
    if let NodeEnum::UpdateStmt(update) = &mut node {
        update.returning_clause = None;
    } else if let NodeEnum::DeleteStmt(delete) = &mut node {
        delete.returning_clause = None;
    } else if let NodeEnum::InsertStmt(insert) = &mut node {
        insert.returning_clause = None;
    }
    node
}

/// Refuses what no rewrite can keep.
fn check(reads: &Reads) -> Result<(), Refusal> {
    if let Some(unknown) = &reads.unknown {
        return Err(Refusal::new(
            Code::RoundTrip,
            format!("the statement holds {unknown}, a construct that pgmend does not know"),
            "write the statement without it",
        ));
    }
    if reads.current_of {
        return Err(Refusal::new(
            Code::CurrentOf,
            "WHERE CURRENT OF names a cursor, which exists only inside one session",
            "write the condition that selects the rows",
        ));
    }
    if reads.writing {
        return Err(Refusal::new(
            Code::WritingCte,
            "a WITH query changes data; in batches it would run once per batch",
            "make one job for each table that changes",
        ));
    }
    Ok(())
}
