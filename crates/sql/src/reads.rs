//! What a statement reads: relations by scope, columns, functions and operators, each by its place.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::{self as p, AExprKind, SetOperation};
use pgmend_core::refusal::Refusal;

use crate::clock;
use crate::fragment;
use crate::walk::{Visitor, Walk};

/// Where in the statement a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In a value that is assigned (`SET`, `DO UPDATE SET`).
    Set,
    /// Where rows are selected: WHERE, FROM, USING, ON, WITH.
    Where,
    /// In the source of an INSERT, its WITH included.
    Source,
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionUse {
    /// The schema, if written.
    pub schema: Option<String>,
    /// The function's name as the catalog spells it.
    pub name: String,
    /// Where it is called.
    pub place: Place,
}

/// Columns that a statement may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnsRead {
    /// A `*` or a whole-row reference: any column.
    All,
    /// These names at most.
    Some(Vec<String>),
}

/// The names of one WITH that are visible so far.
struct Scope {
    recursive: bool,
    names: Vec<String>,
}

/// Everything that one walk over the statement finds.
pub(crate) struct Reads {
    /// The name by which the statement calls its target.
    target: String,
    place: Place,
    scopes: Vec<Scope>,
    correlated: usize,
    /// Relations, CTE names resolved.
    pub(crate) relations: BTreeSet<(Option<String>, String)>,
    /// Function calls.
    pub(crate) functions: BTreeSet<FunctionUse>,
    /// Operators.
    pub(crate) operators: BTreeSet<String>,
    /// Every part of every column reference.
    pub(crate) columns: BTreeSet<String>,
    /// Last names of references that are qualified by the target.
    pub(crate) qualified: BTreeSet<String>,
    /// A `*` or a whole-row reference.
    pub(crate) all_columns: bool,
    /// Rows are gathered somewhere.
    pub(crate) gathers: bool,
    /// A CTE writes.
    pub(crate) writing: bool,
    /// `WHERE CURRENT OF`.
    pub(crate) current_of: bool,
    /// An untyped literal that may read the clock.
    pub(crate) hidden_clock: bool,
    /// A row lock (`FOR UPDATE` …).
    pub(crate) locks: bool,
    /// The name of a node that the walk does not know.
    pub(crate) unknown: Option<String>,
}

/// The functions that a column's default calls, without the clock's, which are bound to the instant.
pub fn functions_of_default(sql: &str) -> Result<Vec<FunctionUse>, Refusal> {
    let mut default = fragment::expression(sql)?;
    clock::bind(&mut default, 1);
    let mut reads = Reads::empty("");
    reads.part(Place::Set, &mut default);
    Ok(reads.functions.into_iter().collect())
}

impl Reads {
    /// Walks a statement, a copy of which is used up. Function places follow the statement's parts.
    pub(crate) fn of(statement: &NodeEnum, target: &str) -> Reads {
        let mut reads = Reads::empty(target);
        #[expect(clippy::wildcard_enum_match_arm, reason = "the statement's kind is checked before")]
        match &mut statement.clone() {
            NodeEnum::UpdateStmt(update) => reads.update(update),
            NodeEnum::DeleteStmt(delete) => reads.delete(delete),
            NodeEnum::InsertStmt(insert) => reads.insert(insert),
            other => reads.unknown(other),
        }
        reads
    }

    fn empty(target: &str) -> Reads {
        Reads {
            target: target.to_owned(),
            place: Place::Where,
            scopes: Vec::new(),
            correlated: 0,
            relations: BTreeSet::new(),
            functions: BTreeSet::new(),
            operators: BTreeSet::new(),
            columns: BTreeSet::new(),
            qualified: BTreeSet::new(),
            all_columns: false,
            gathers: false,
            writing: false,
            current_of: false,
            hidden_clock: false,
            locks: false,
            unknown: None,
        }
    }

    fn part(&mut self, place: Place, part: &mut impl Walk) {
        self.place = place;
        part.walk(self);
    }

    fn update(&mut self, update: &mut p::UpdateStmt) {
        self.open(update.with_clause.as_ref());
        self.part(Place::Where, &mut update.with_clause);
        self.part(Place::Set, &mut update.target_list);
        self.part(Place::Where, &mut update.from_clause);
        self.part(Place::Where, &mut update.where_clause);
        self.close();
    }

    fn delete(&mut self, delete: &mut p::DeleteStmt) {
        self.open(delete.with_clause.as_ref());
        self.part(Place::Where, &mut delete.with_clause);
        self.part(Place::Where, &mut delete.using_clause);
        self.part(Place::Where, &mut delete.where_clause);
        self.close();
    }

    fn insert(&mut self, insert: &mut p::InsertStmt) {
        self.open(insert.with_clause.as_ref());
        self.part(Place::Source, &mut insert.with_clause);
        self.part(Place::Source, &mut insert.select_stmt);
        if let Some(conflict) = &mut insert.on_conflict_clause {
            self.part(Place::Where, &mut conflict.infer);
            self.part(Place::Set, &mut conflict.target_list);
            self.part(Place::Where, &mut conflict.where_clause);
        }
        self.close();
    }

    fn gather(&mut self) {
        self.gathers |= self.correlated == 0;
    }

    fn call(&mut self, call: &p::FuncCall) {
        let (schema, name) = fragment::qualified(&call.funcname);
        let shaped = call.agg_star
            || call.agg_distinct
            || call.agg_within_group
            || call.over.is_some()
            || call.agg_filter.is_some()
            || !call.agg_order.is_empty();
        if shaped || AGGREGATES.contains(&name.as_str()) {
            self.gather();
        }
        self.functions.insert(FunctionUse { schema, name, place: self.place });
    }

    fn column(&mut self, column: &p::ColumnRef) {
        let names: Vec<&str> = column.fields.iter().filter_map(fragment::text).collect();
        let star = names.len() < column.fields.len();
        let of_target = names.iter().take(names.len().saturating_sub(usize::from(!star))).any(|n| *n == self.target);
        self.all_columns |= star && (names.is_empty() || of_target);
        self.all_columns |= !star && names == [self.target.as_str()];
        if let (false, true, Some(last)) = (star, of_target, names.last()) {
            self.qualified.insert((*last).to_owned());
        }
        self.columns.extend(names.into_iter().map(str::to_owned));
    }

    fn operator(&mut self, expr: &p::AExpr) {
        let (_, name) = fragment::qualified(&expr.name);
        let names: &[&str] = match expr.kind() {
            AExprKind::AexprBetween
            | AExprKind::AexprNotBetween
            | AExprKind::AexprBetweenSym
            | AExprKind::AexprNotBetweenSym => &["<=", ">="],
            AExprKind::Undefined
            | AExprKind::AexprOp
            | AExprKind::AexprOpAny
            | AExprKind::AexprOpAll
            | AExprKind::AexprDistinct
            | AExprKind::AexprNotDistinct
            | AExprKind::AexprNullif
            | AExprKind::AexprIn
            | AExprKind::AexprLike
            | AExprKind::AexprIlike
            | AExprKind::AexprSimilar => &[&name],
        };
        self.operators.extend(names.iter().map(|name| (*name).to_owned()));
    }

    /// Whether a sub-select names the target, so that it is computed for each row anyway.
    fn is_correlated(&self, sublink: &p::SubLink) -> bool {
        let mut inner = Reads::empty(&self.target);
        sublink.subselect.clone().walk(&mut inner);
        !inner.qualified.is_empty()
    }
}

impl Visitor for Reads {
    fn enter(&mut self, node: &mut NodeEnum) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the grammar's nodes, of which these matter")]
        match node {
            NodeEnum::FuncCall(call) => self.call(call),
            NodeEnum::ColumnRef(column) => self.column(column),
            NodeEnum::AExpr(expr) => self.operator(expr),
            NodeEnum::RangeTableSample(sample) => {
                let (schema, name) = fragment::qualified(&sample.method);
                self.functions.insert(FunctionUse { schema, name, place: self.place });
            }
            NodeEnum::CurrentOfExpr(_) => self.current_of = true,
            NodeEnum::RangeSubselect(sub) => {
                let values = sub.subquery.as_ref().and_then(|query| query.node.as_ref()).is_some_and(
                    |query| matches!(query, NodeEnum::SelectStmt(select) if !select.values_lists.is_empty()),
                );
                if !values {
                    self.gather();
                }
            }
            NodeEnum::SubLink(sublink) => {
                let (_, name) = fragment::qualified(&sublink.oper_name);
                let any = p::SubLinkType::AnySublink as i32;
                if name.is_empty() && sublink.sub_link_type == any {
                    self.operators.insert("=".to_owned());
                } else if !name.is_empty() {
                    self.operators.insert(name);
                }
                self.correlated += usize::from(self.is_correlated(sublink));
            }
            NodeEnum::CommonTableExpr(cte) => {
                self.gathers = true;
                let query = cte.ctequery.as_ref().and_then(|query| query.node.as_ref());
                self.writing |= !matches!(query, Some(NodeEnum::SelectStmt(_)));
            }
            NodeEnum::TypeCast(cast) => {
                // A literal typed as anything but a date or a time does not read the clock.
                if let Some(arg) = &mut cast.arg
                    && !cast.type_name.as_ref().is_some_and(clock::is_dated)
                    && arg.node.as_ref().is_some_and(|arg| clock::string_constant(arg).is_some())
                {
                    arg.node = None;
                }
            }
            NodeEnum::ResTarget(target) => {
                // `SET at = 'now'` is bound if the column is a date or a time, and else is a text, as in a select list.
                if let Some(value) = &mut target.val
                    && value.node.as_ref().and_then(clock::string_constant).is_some_and(clock::is_one_clock_word)
                {
                    value.node = None;
                }
            }
            NodeEnum::AConst(_) => {
                self.hidden_clock |= clock::string_constant(node).is_some_and(clock::is_clock_word);
            }
            _ => {}
        }
    }

    fn leave(&mut self, node: &mut NodeEnum) {
        if let NodeEnum::SubLink(sublink) = node {
            self.correlated -= usize::from(self.is_correlated(sublink));
        }
        if let NodeEnum::CommonTableExpr(cte) = node
            && let Some(scope) = self.scopes.last_mut()
            && !scope.recursive
        {
            scope.names.push(cte.ctename.clone());
        }
    }

    fn relation(&mut self, relation: &mut p::RangeVar) {
        let cte =
            relation.schemaname.is_empty() && self.scopes.iter().any(|scope| scope.names.contains(&relation.relname));
        if !cte {
            let schema = Some(relation.schemaname.clone()).filter(|schema| !schema.is_empty());
            self.relations.insert((schema, relation.relname.clone()));
        }
    }

    fn select(&mut self, select: &mut p::SelectStmt) {
        self.locks |= !select.locking_clause.is_empty();
        // Locked relations are aliases, not reads.
        select.locking_clause.clear();
        let gathers = !select.distinct_clause.is_empty()
            || !select.group_clause.is_empty()
            || select.having_clause.is_some()
            || !select.window_clause.is_empty()
            || select.limit_count.is_some()
            || select.limit_offset.is_some()
            || !matches!(select.op(), SetOperation::SetopNone | SetOperation::Undefined);
        if gathers {
            self.gather();
        }
    }

    fn open(&mut self, with: Option<&p::WithClause>) {
        let recursive = with.is_some_and(|with| with.recursive);
        let names = match with {
            Some(with) if recursive => with.ctes.iter().filter_map(cte_name).collect(),
            Some(_) | None => Vec::new(),
        };
        self.scopes.push(Scope { recursive, names });
    }

    fn close(&mut self) {
        self.scopes.pop();
    }

    fn unknown(&mut self, node: &NodeEnum) {
        let debug = format!("{node:?}");
        let name = debug.split(['(', ' ']).next().unwrap_or_default();
        self.unknown.get_or_insert_with(|| name.to_owned());
    }
}

fn cte_name(node: &pg_query::Node) -> Option<String> {
    match &node.node {
        Some(NodeEnum::CommonTableExpr(cte)) => Some(cte.ctename.clone()),
        _ => None,
    }
}

/// The built-in aggregates. A user's own is found in the catalog through [`FunctionUse`].
const AGGREGATES: &[&str] = &[
    "any_value",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "every",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "max",
    "min",
    "mode",
    "percentile_cont",
    "percentile_disc",
    "range_agg",
    "range_intersect_agg",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
    "xmlagg",
];
